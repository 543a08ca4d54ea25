"""An output directory's life, the same for every command that writes one: which job it is for, another start
that goes on with it, what is refused, and _SUCCESS.

OUTPUT/_manifest/plan.json     the record: what makes two starts the same job
OUTPUT/summary.json            written when all work has ended
OUTPUT/_manifest/files.json    what the output holds, where nothing is missing
OUTPUT/_SUCCESS                written last, empty, where nothing is missing; withdrawn while damage is mended
"""

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from pipeline import log
from pipeline.errors import InputError, OutputError
from pipeline.redaction import redacted, redacted_values
from pipeline.tables.output.damage import SUMMARY, find_problems
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.output.lease import Lease, last_heartbeat, lease
from pipeline.tables.output.local_disk import refuse_lost_link
from pipeline.tables.output.manifest import Manifest, write_manifest
from pipeline.tables.output.sealed import DamagedError, Stamp, sealed, unsealed, version_of
from pipeline.tables.storage import absolute

_RECORD, _SUCCESS = "_manifest/plan.json", "_SUCCESS"
_FOLDERS = {"_manifest", "candidates", "embeddings", "rejects", "run", "scores", "training_rows", "unmatched"}
"""Whose files readers of an output take for parts of it."""
_OLD_RECORDS = ("_manifest/prepare.json",)
_SHOWN_DIFFERENCES = 10
_REUSING = ("rerank", "retrieve")
"""Commands that take what still holds from a former output, their config's `reuse`."""

Summary = TypeVar("Summary", bound=BaseModel)


class JobRecord(BaseModel):
    """What makes two starts the same job, and how large it is."""

    model_config = ConfigDict(frozen=True)

    format_version: int
    command: str
    """Which one writes here: `prepare`, `rerank`, `retrieve`, `mine`."""
    config: Annotated[dict[str, Any], AfterValidator(redacted_values)]
    """Dotted field to value: all that the output depends on."""
    models: dict[str, str]
    """The config's field that names a model, to the fingerprint of its weights and files."""
    files: Annotated[dict[str, str], AfterValidator(redacted_values)]
    """The input's files with their identities."""
    shards: int
    pairs: int

    @property
    def identity(self) -> str:
        """By which its shards' markers know it."""
        return Stamp.of(json.dumps(self.model_dump(), sort_keys=True).encode()).digest


def dtypes_of(record: JobRecord) -> dict[str, Any]:
    """In which dtype each scorer of a job computes, by the scorer's field."""
    return {
        name.removesuffix(".dtype"): value
        for name, value in record.config.items()
        if name.endswith("scorer.dtype")
    }


def open_directory(url: str, inputs: Iterable[str]) -> Directory:
    """The output directory. Raises OutputError where another start would take the output for input, or the
    readers of another output for a part of that.

    inputs: what is read, where it is a place in storage. Raises InputError for a part of another output that
    is not finished, or not as it was left.
    """
    output = Directory(url)
    if output.url.startswith("memory://"):
        raise OutputError(f"{output.url}: ends with the process that writes it; take another output.path")
    refuse_lost_link(Path(output.url))
    if (outer := _output_around(output.url)) is not None:
        raise OutputError(f"{output.url}: lies inside of the output {outer.url}; take another output.path")
    for path in inputs:
        _check_table(path)
        if f"{output.url}/".startswith(f"{absolute(path).rstrip('/')}/"):
            raise OutputError(f"{output.url}: lies inside of the input {path}; take another output.path")
    return output


def _output_around(url: str) -> Directory | None:
    """The output in one of whose own folders a place lies, where there is one.

    Its parents may be closed to this job: what can't be read counts as no output.
    """
    parts = url.split("/")
    for at, part in enumerate(parts):
        if part in _FOLDERS:
            with suppress(OutputError):
                outer = Directory("/".join(parts[:at]) or "/")
                if outer.read(_RECORD) is not None:
                    return outer
    return None


def read_record(output: Directory) -> JobRecord | None:
    """The job whose output this is; None where there is none. Raises OutputError for another format's."""
    written = output.read(_RECORD)
    if written is None:
        if any(output.read(name) is not None for name in _OLD_RECORDS):
            raise _other_format(output, "an older")
        return None
    version = version_of(written)
    if version is not None and version != FORMAT_VERSION:
        raise _other_format(output, "a newer" if version > FORMAT_VERSION else "an older")
    try:
        return unsealed(written, JobRecord)
    except DamagedError as error:
        raise OutputError(
            f"{output.url}/{_RECORD}: is damaged, so that nobody can tell which job's output this is; take"
            " another output.path, or remove the directory"
        ) from error


def recorded_dtypes(output: Directory, command: str, results: Collection[str]) -> dict[str, Any]:
    """In which dtype the start whose results lie there has each scorer compute, by the scorer's field.

    Where that was `auto`, whoever goes on takes it: today's machines may be others. Empty where there is
    nothing to go on with.
    """
    before = read_record(output)
    if before is None or before.command != command or not any(output.names(folder) for folder in results):
        return {}
    return dtypes_of(before)


def check_output(
    output: Directory, record: JobRecord, results: Collection[str], *, resumes: bool
) -> JobRecord | None:
    """The job whose output the directory holds, which must be this one; None where it may begin afresh.

    results: the subdirectories of this command's results; without any there is nothing to damage.
    resumes: whether an unfinished job is gone on with, and so must be this very one. Raises OutputError where
    the directory holds something else, another job's output or files of unknown origin, saying what differs.
    """
    before = read_record(output)
    if before is None:
        # A start that was killed before its record was written leaves an empty manifest.
        if strange := sorted(output.names() - {"_manifest"}):
            raise OutputError(
                f"{output.url}: not empty, and no output of this program (holds {strange[0]}, and no"
                f" {_RECORD}); take another output.path, or remove the directory"
            )
        return None
    same_command = before.command == record.command
    if same_command and not resumes and not is_complete(output):
        return None
    differences = list(_differences(before, record))
    if same_command and differences and not any(output.names(subdirectory) for subdirectory in results):
        return None
    if differences:
        shown = "\n".join(f"  {line}" for line in differences[:_SHOWN_DIFFERENCES])
        hidden = len(differences) - _SHOWN_DIFFERENCES
        may_reuse = same_command and record.command in _REUSING
        reuse = (
            f" (with `reuse: {output.url}`, once it is finished, for what still holds)" if may_reuse else ""
        )
        raise OutputError(
            f"{output.url}: holds the output of another job, or of an earlier state of this one:\n{shown}"
            + (f"\n  and {hidden} more" if hidden > 0 else "")
            + f"\nTake another output.path{reuse}, give what it was before, or remove the directory"
        )
    return before


@contextmanager
def held(output: Directory, record: JobRecord, results: Collection[str], done: int) -> Iterator[Lease]:
    """Hold the output alone, as `lease` does, with `done` of the shards done. What `check_output` saw before
    may be another start's by now: it is checked again.
    """
    with lease(output, record.shards, done) as alone:
        check_output(output, record, results, resumes=True)
        yield alone


def write_record(output: Directory, record: JobRecord) -> None:
    """Make the directory this job's, which `check_output` has let pass."""
    output.write(_RECORD, sealed(record))


def check_not_removed(output: Directory) -> None:
    """Raises OutputError where the directory of a job that runs was removed."""
    if output.read(_RECORD) is None:
        raise OutputError(
            f"{output.url}: the output was removed while the job ran ({_RECORD} is gone). Remove what is left"
            " of the directory and start again"
        )


def is_complete(output: Directory) -> bool:
    """Whether _SUCCESS is there: nothing is missing."""
    return output.read(_SUCCESS) is not None


def withdraw_success(output: Directory) -> None:
    """Readers shall not take the output for finished while it is mended."""
    output.remove_file(_SUCCESS)


def read_summary(output: Directory, kind: type[Summary]) -> Summary | None:
    """summary.json, of a job whose work has ended; None where it has not, or where the file is damaged."""
    try:
        return kind.model_validate_json(output.read(SUMMARY) or b"")
    except ValidationError:
        return None


def is_intact(output: Directory, *, check_bytes: bool = False) -> bool:
    """Whether a finished output is as it was left. The log tells what is damaged, to be made again.

    Raises OutputError for a file that is none of the output's: its readers would take it for a part.
    """
    found = find_problems(output, check_bytes=check_bytes)
    for problem in found:
        if problem.strange:
            raise OutputError(f"{output.url}/{problem}; remove it, and start again")
    for problem in found[:_SHOWN_DIFFERENCES]:
        log.warning("output is damaged", file=f"{output.url}/{problem.file}", why=problem.what)
    return not found


def _check_table(table: str) -> None:
    output = _output_around(f"{absolute(table)}/")
    record = None if output is None else read_record(output)
    if output is None or record is None:
        return
    if not is_complete(output):
        raise InputError(
            f"{table}: is not finished (no _SUCCESS in {output.url}); run pipeline.{record.command} for it to"
            " the end"
        )
    for problem in find_problems(output):
        way_out = (
            "remove it" if problem.strange else f"run pipeline.{record.command} for it again, which mends it"
        )
        raise InputError(f"{output.url}/{problem}; {way_out}")


def when_finished(output: Directory) -> str:
    """When the last start ended, in words, of a job whose work has ended."""
    heartbeat = last_heartbeat(output)
    return "an unknown time" if heartbeat is None else f"{heartbeat.time:%Y-%m-%d %H:%M:%S} UTC"


def check_written(output: Directory, names: Collection[str], there: Collection[str], noun: str) -> None:
    """Raises OutputError where some of what was reported written (`names`, a noun each) is not there."""
    missing = sorted(set(names).difference(there))
    if missing:
        raise OutputError(
            f"{output.url}: {len(missing)} of {len(names)} {noun} were written, but not here ({missing[0]})."
            " On a cluster of several nodes the output must be in an object store, or in a directory that all"
            " nodes share"
        )


def finish(
    output: Directory,
    summary: BaseModel,
    written: Iterable[str],
    *,
    complete: bool,
    manifest: Manifest | None = None,
) -> None:
    """Write the summary, and _SUCCESS where nothing is missing.

    written: subdirectories from which, besides this module's own, leftovers of killed writers are removed;
    manifest: of all that was written, but for the summary.
    """
    for subdirectory in ("", "_manifest", *written):
        output.remove_leftovers(subdirectory)
    check_not_removed(output)
    stamp = output.write(SUMMARY, redacted(summary.model_dump_json(indent=2)).encode())
    if complete:
        if manifest is not None:
            files = {**manifest.files, SUMMARY: stamp}
            write_manifest(output, manifest.model_copy(update={"files": files}))
            for problem in find_problems(output):
                way_out = "remove it, and start again" if problem.strange else "start again"
                raise OutputError(f"{output.url}/{problem}; {way_out}")
        output.write(_SUCCESS, b"")


def _other_format(output: Directory, age: str) -> OutputError:
    return OutputError(
        f"{output.url}: was written by {age} version of this program, in a format that this one"
        f" (format {FORMAT_VERSION}) does not read. Take another output.path, or remove the directory"
    )


def _differences(before: JobRecord, now: JobRecord) -> Iterator[str]:
    if before.command != now.command:
        yield f"the command: was {before.command}, is {now.command}"
        return  # it has other fields, each of which would be told
    for field in sorted(before.config.keys() | now.config.keys()):
        old, new = before.config.get(field), now.config.get(field)
        if old != new:
            yield f"{field}: was {json.dumps(old)}, is {json.dumps(new)}"
    for field in sorted(before.models.keys() | now.models.keys()):
        old, new = before.models.get(field, "none"), now.models.get(field, "none")
        if old != new:
            yield f"{field}: the model's weights or files: were {old}, are {new}"
    for file in sorted(before.files.keys() | now.files.keys()):
        old, new = before.files.get(file), now.files.get(file)
        if old is None:
            yield f"{file}: is new"
        elif old != new:
            yield f"{file}: was {old}, is {new or 'gone'}"
