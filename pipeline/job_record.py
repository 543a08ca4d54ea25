"""The record of a job, by which its output is known as its own.

OUTPUT/_manifest/plan.json     what makes two starts the same job
"""

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from pipeline.errors import OtherFormatError, OutputError
from pipeline.redaction import redacted_values
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.output.sealed import DamagedError, Stamp, sealed, unsealed, version_of
from pipeline.tables.table_files import TableVersion

RECORD = "_manifest/plan.json"
_OLD_RECORDS = ("_manifest/prepare.json",)


class JobRecord(BaseModel):
    """What makes two starts the same job, and how large it is."""

    model_config = ConfigDict(frozen=True)

    format_version: int
    command: str
    """Which one writes here: `prepare`, `rerank`, `retrieve`, `mine`, `finetune`."""
    config: Annotated[dict[str, Any], AfterValidator(redacted_values)]
    """Dotted field to value: all that the output depends on."""
    models: dict[str, str]
    """The config's field that names a model, to the fingerprint of its weights and files."""
    files: Annotated[dict[str, str], AfterValidator(redacted_values)]
    """The input's files with their identities."""
    shards: int
    pairs: int
    versions: dict[str, TableVersion] = {}
    """The config's field of each table that has versions, to what is read of it, which `files` tell too."""

    @property
    def identity(self) -> str:
        """By which its shards' markers know it."""
        fields = self.model_dump(exclude={"versions"})
        return Stamp.of(json.dumps(fields, sort_keys=True).encode()).digest


def known_versions(tables: Mapping[str, TableVersion | None]) -> dict[str, TableVersion]:
    """Of those that have one."""
    return {field: version for field, version in tables.items() if version is not None}


def dtypes_of(record: JobRecord) -> dict[str, Any]:
    """In which dtype each scorer of a job computes, by the scorer's field."""
    return {
        name.removesuffix(".dtype"): value
        for name, value in record.config.items()
        if name.endswith("scorer.dtype")
    }


def read_record(output: Directory) -> JobRecord | None:
    """The job whose output this is; None where there is none. Raises OtherFormatError."""
    written = output.read(RECORD)
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
            f"{output.url}/{RECORD}: is damaged, so that nobody can tell which job's output this is; take"
            " another output.path, or remove the directory"
        ) from error


def write_record(output: Directory, record: JobRecord) -> None:
    """Make the directory this job's, which `check_output` has let pass."""
    output.write(RECORD, sealed(record))


def check_not_removed(output: Directory) -> None:
    """Raises OutputError where the directory of a job that runs was removed."""
    if output.read(RECORD) is None:
        raise OutputError(
            f"{output.url}: the output was removed while the job ran ({RECORD} is gone). Remove what is left"
            " of the directory and start again"
        )


def recorded_dtypes(output: Directory, command: str, results: Collection[str]) -> dict[str, Any]:
    """In which dtype the start whose results lie there has each scorer compute, by the scorer's field.

    Where that was `auto`, whoever goes on takes it: today's machines may be others. Empty where there is
    nothing to go on with.
    """
    before = begun_job(output, command, results)
    return {} if before is None else dtypes_of(before)


def begun_job(output: Directory, command: str, results: Collection[str]) -> JobRecord | None:
    """The job of the start whose results lie there; None where there is nothing to go on with.

    results: the subdirectories that hold any.
    """
    before = read_record(output)
    if before is None or before.command != command or not any(output.names(folder) for folder in results):
        return None
    return before


def shown(value: Any) -> str:
    """A field's value for a message. Null may stand for a default that is another value."""
    return "not given" if value is None else json.dumps(value)


def differences(before: JobRecord, now: JobRecord) -> Iterator[str]:
    if before.command != now.command:
        yield f"the command: was {before.command}, is {now.command}"
        return  # it has other fields, each of which would be told
    for field in sorted(before.config.keys() | now.config.keys()):
        old, new = before.config.get(field), now.config.get(field)
        if old != new:
            yield f"{field}: was {shown(old)}, is {shown(new)}"
    for field in sorted(before.models.keys() | now.models.keys()):
        old, new = before.models.get(field, "none"), now.models.get(field, "none")
        if old != new:
            yield f"{field}: the model's weights or files: were {old}, are {new}"
    if before.files != now.files:  # versions may differ in nothing that is read
        versions = list(_version_differences(before, now))
        yield from versions or _file_differences(before, now)


def _file_differences(before: JobRecord, now: JobRecord) -> Iterator[str]:
    for file in sorted(before.files.keys() | now.files.keys()):
        old, new = before.files.get(file), now.files.get(file)
        if old is None:
            yield f"{file}: is new"
        elif old != new:
            yield f"{file}: was {old}, is {new or 'gone'}"


def _version_differences(before: JobRecord, now: JobRecord) -> Iterator[str]:
    for field, version in now.versions.items():
        was = before.versions.get(field, version).version
        if was != version.version:
            yield f"{field}.version: was {was}, is {version.version}"


def _other_format(output: Directory, age: str) -> OtherFormatError:
    return OtherFormatError(
        f"{output.url}: was written by {age} version of this program, in a format that this one"
        f" (format {FORMAT_VERSION}) does not read. Take another output.path, or remove the directory"
    )
