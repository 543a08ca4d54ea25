"""An output directory's life, the same for every command that writes one: which job it is for, another start
that goes on with it, what is refused, and _SUCCESS.

OUTPUT/_manifest/plan.json     the record: what makes two starts the same job
OUTPUT/summary.json            written when all work has ended
OUTPUT/_manifest/files.json    what the output holds, where nothing is missing
OUTPUT/_SUCCESS                written last, empty, where nothing is missing; withdrawn while damage is mended
"""

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline import log
from pipeline.errors import InputError, NotThereError, OutputError, TemporaryError
from pipeline.job_record import (
    RECORD,
    JobRecord,
    check_not_removed,
    differences,
    read_record,
    write_record,
)
from pipeline.job_summary import JobSummary
from pipeline.outer_output import outputs_around
from pipeline.redaction import redacted
from pipeline.tables.output.damage import SUMMARY, find_problems
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.lease import Lease, is_being_written, last_heartbeat, lease
from pipeline.tables.output.local_disk import refuse_lost_link
from pipeline.tables.output.manifest import Manifest, read_manifest, write_manifest
from pipeline.tables.output.markers import all_files
from pipeline.tables.storage import absolute, bucket_lacking

_SUCCESS = "_SUCCESS"
_REJECTS = "rejects"
_SHOWN_DIFFERENCES = 10
_LOOKED_INTO = 20
_REUSING = ("rerank", "retrieve")
"""Commands that take what still holds from a former output, their config's `reuse`."""

Summary = TypeVar("Summary", bound=JobSummary)


def open_directory(url: str, inputs: Iterable[str]) -> Directory:
    """The output directory. Raises OutputError where another start would take the output for input, or the
    readers of another output for a part of that, or where its bucket is missing.

    inputs: what is read, where it is a place in storage. Raises InputError for a part of another output that
    is not finished, or not as it was left; TemporaryError for one that is being written now.
    """
    output = Directory(url)
    if output.url.startswith("memory://"):
        raise OutputError(f"{output.url}: ends with the process that writes it; take another output.path")
    refuse_lost_link(Path(output.url))
    if (lack := bucket_lacking(output.url, OutputError)) is not None:  # which a store's client might make
        raise OutputError(lack)
    for outer in outputs_around(output.url):
        raise OutputError(f"{output.url}: lies inside of the output {outer.url}; take another output.path")
    for path in inputs:
        _check_table(path)
        if f"{output.url}/".startswith(f"{absolute(path).rstrip('/')}/"):
            raise OutputError(f"{output.url}: lies inside of the input {path}; take another output.path")
    return output


def _output_inside(output: Directory, names: Iterable[str]) -> str | None:
    """One of these names below which lies an output. It looks into some, since there may be very many."""
    for name in sorted(names)[-_LOOKED_INTO:]:
        with suppress(OutputError):  # of a file, or of a folder that is closed to this job
            if Directory(f"{output.url}/{name}").read(RECORD) is not None:
                return name
    return None


@dataclass(frozen=True)
class Start(Generic[Summary]):
    """One start of a command on its output: refused, or told that all is done, or alone at work there."""

    output: Directory
    record: JobRecord
    results: Collection[str]
    """As `check_output` takes them, with `resumes`."""
    summary: type[Summary]
    """The command's."""
    resumes: bool = True

    def finished(self, *, check_bytes: bool = False) -> Summary | None:
        """The summary of this very job where it is finished and whole; None where there is something to do.

        check_bytes: as `is_intact` takes it. Raises OutputError as `check_output` does.
        """
        if check_output(self.output, self.record, self.results, resumes=self.resumes) is None:
            return None
        if not is_complete(self.output) or not is_intact(self.output, check_bytes=check_bytes):
            return None
        summary = read_summary(self.output, self.summary)
        if summary is None:
            return None
        return summary.model_copy(update={"finished_before": _when_finished(self.output)})

    def run(
        self,
        work: Callable[[Lease, Summary | None], Summary],
        done: Callable[[], int],
        *,
        check_bytes: bool = False,
        lacks: Callable[[Summary], bool] = lambda _: False,
    ) -> Summary:
        """The summary of a job that is finished, which is not touched; else what `work` gives of it.

        work: does all that is left, for which it has the output alone, and ends with `finish`; done: how many
        of the record's shards an earlier start has done; lacks: whether a finished job lacks something that
        this start asks for, so that `work` is to add it, and is handed its summary.
        """
        told = self.output.read(SUMMARY)
        finished = self.finished(check_bytes=check_bytes)
        if finished is not None and not lacks(finished):
            return self._nothing_to_do(finished)
        with lease(self.output, self.record.shards, done()) as held:
            # Another start may have worked here until now: on this job, or on another one.
            if check_output(self.output, self.record, self.results, resumes=self.resumes) is None:
                self.output.remove(_REJECTS)  # which a job that left no results may have left
            if self.output.read(SUMMARY) != told:
                finished = self.finished(check_bytes=check_bytes)
                if finished is not None and not lacks(finished):
                    return self._nothing_to_do(finished)
            # Readers shall not take the output for finished while it is mended.
            self.output.remove_file(_SUCCESS)
            write_record(self.output, self.record)
            return work(held, finished)

    def _nothing_to_do(self, finished: Summary) -> Summary:
        log.info("already finished", output=self.output.url)
        return finished


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
            if (inner := _output_inside(output, strange)) is not None:
                raise OutputError(
                    f"{output.url}: holds other outputs, such as {inner}; take another output.path, such as a"
                    " new folder in it. Is {run_date} missing from the path?"
                )
            raise OutputError(
                f"{output.url}: not empty, and no output of this program (holds {strange[0]}, and no"
                f" {RECORD}); take another output.path, or remove the directory"
            )
        return None
    same_command = before.command == record.command
    if same_command and not resumes and not is_complete(output):
        return None
    differing = list(differences(before, record))
    if same_command and differing and not any(output.names(subdirectory) for subdirectory in results):
        return None
    if differing:
        shown = "\n".join(f"  {line}" for line in differing[:_SHOWN_DIFFERENCES])
        hidden = len(differing) - _SHOWN_DIFFERENCES
        # A first stage without a model has no embeddings that could be taken.
        may_reuse = same_command and record.command in _REUSING and record.models
        reuse = (
            f" (with `reuse: {output.url}`, once it is finished, for what still holds)" if may_reuse else ""
        )
        raise OutputError(
            f"{output.url}: holds the output of another job, or of an earlier state of this one:\n{shown}"
            + (f"\n  and {hidden} more" if hidden > 0 else "")
            + f"\nTake another output.path{reuse}, give what it was before, or remove the directory"
        )
    return before


def is_complete(output: Directory) -> bool:
    """Whether _SUCCESS is there: nothing is missing."""
    return output.read(_SUCCESS) is not None


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
    for output in outputs_around(f"{absolute(table)}/"):
        if (record := read_record(output)) is not None:
            _check_ended(table, output, record.command)


def _check_ended(table: str, output: Directory, command: str) -> None:
    if not is_complete(output):
        if is_being_written(output):
            raise TemporaryError(f"{table}: is not finished: pipeline.{command} is writing it now")
        raise NotThereError(
            table, f"is not finished (no _SUCCESS in {output.url}); run pipeline.{command} for it to the end"
        )
    for problem in find_problems(output):
        way_out = "remove it" if problem.strange else f"run pipeline.{command} for it again, which mends it"
        raise InputError(f"{output.url}/{problem}; {way_out}")


def digests(table: str) -> dict[str, str]:
    """Of the files of a table that finished outputs hold, by their urls; of no file of any other table."""
    return {
        f"{output.url}/{name}": stamp.digest
        for output in outputs_around(f"{absolute(table)}/")
        if isinstance(manifest := read_manifest(output), Manifest)
        for name, stamp in all_files(output, manifest).items()
    }


def _when_finished(output: Directory) -> str:
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
                if problem.strange:
                    raise OutputError(f"{output.url}/{problem}; remove it, and start again")
                raise TemporaryError(f"{output.url}/{problem}; start again")
        output.write(_SUCCESS, b"")
