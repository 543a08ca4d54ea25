"""A job that has begun goes on with the versions of a lakehouse's tables that it began with."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pydantic import BaseModel

from pipeline import log
from pipeline.errors import InputError
from pipeline.job_record import begun_job
from pipeline.output import is_complete
from pipeline.tables.config import InputConfig, WholeTableConfig
from pipeline.tables.format import SnapshotFormat, format_named, with_advice
from pipeline.tables.output.directory import Directory
from pipeline.tables.table_files import TableVersion, VersionGoneError

Config = TypeVar("Config", bound=BaseModel)


@contextmanager
def with_begun_versions(
    config: Config,
    output: Directory,
    command: str,
    results: Collection[str],
    *,
    resumes: bool = True,
) -> Iterator[Config]:
    """The config, with a version for each table that it names without one and an earlier start has read.

    A finished job takes none, unless its place is that of a date, whose starts are all the same job: what has
    changed since then is told as another job's. results, resumes: as `output.check_output` takes them.
    Raises InputError with the way out where a version is gone by now, which no later start finds again.
    """
    taken = set[tuple[str, int]]()
    tables = dict(_without_version(config))
    begun = begun_job(output, command, results) if tables else None
    if begun is not None and (_is_dated(config, output) if is_complete(output) else resumes):
        for field, was in begun.versions.items():
            if field in tables and TableVersion.of(tables[field], was.version) == was:
                log.info("this job began with a version of its table", of=field, **was.model_dump())
                config = _with_version(config, field.split("."), was.version)
                taken.add((tables[field].path, was.version))
    try:
        yield config
    except VersionGoneError as error:
        if (error.place, error.version) not in taken:
            raise
        way_out = (
            f"This job began with version {error.version}: to begin with what is there now, take another"
            " output.path, or remove the directory"
        )
        if is_complete(output):
            way_out = (
                f"{output.url} is finished and was made of it. Without it nothing can be compared or mended,"
                " and nothing was done. Leave the output alone:"
                f" pipeline.status --output {output.url} tells whether it is whole"
            )
        raise InputError(with_advice(str(error), way_out)) from error


def _is_dated(config: BaseModel, output: Directory) -> bool:
    """Whether the output is that of one date, and so are all jobs there one."""
    run_date = getattr(config, "run_date", None)
    return run_date is not None and str(run_date) in output.url


def _without_version(
    config: BaseModel, under: str = ""
) -> Iterator[tuple[str, InputConfig | WholeTableConfig]]:
    """The tables of a config that have versions, of which it names none, by their dotted fields."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, InputConfig | WholeTableConfig):
            if value.version is None and isinstance(format_named(value.format), SnapshotFormat):
                yield f"{under}{name}", value
        elif isinstance(value, BaseModel):
            yield from _without_version(value, f"{under}{name}.")


def _with_version(config: Config, names: list[str], version: int) -> Config:
    if not names:
        return config.model_copy(update={"version": version})
    below = _with_version(getattr(config, names[0]), names[1:], version)
    return config.model_copy(update={names[0]: below})
