"""The files of a table of any format: found by their names, or those that the table itself tells."""

from collections.abc import Iterable, Iterator
from typing import Self

from pydantic import BaseModel, ConfigDict

from pipeline import log
from pipeline.errors import InputError, NotThereError, RayrankError
from pipeline.redaction import redacted
from pipeline.tables.config import InputConfig, WholeTableConfig
from pipeline.tables.format import FileFormat, SnapshotFormat, advised, format_named, with_advice
from pipeline.tables.input.lakehouse import LakehouseError
from pipeline.tables.input.listing import NoFilesError, find_files
from pipeline.tables.input.snapshot import Snapshot
from pipeline.tables.storage import absolute


class TableVersion(BaseModel):
    """What was read of a table that has versions."""

    model_config = ConfigDict(frozen=True)

    path: str
    """`directory_of` it, or its name."""
    version: int

    @classmethod
    def of(cls, config: InputConfig | WholeTableConfig, version: int | None) -> Self | None:
        """None of a table that has none."""
        if version is None:
            return None
        return cls(path=redacted(directory_of(config) or config.path), version=version)


class VersionGoneError(NotThereError):
    """The version of a table that was asked for can't be read, or not all of its files are left."""

    def __init__(self, place: str, version: int, why: str) -> None:
        super().__init__(place, f"version {version} can't be read: {why}")
        self.args = (place, version, why)  # what unpickling hands to __init__
        self.version = version


def table_files(config: InputConfig | WholeTableConfig, field: str, id_name: str) -> Snapshot:
    """field: where a config names the table; id_name: the column that every such table has.

    Raises InputError where there is no such table.
    """
    table_format = format_named(config.format)
    if isinstance(table_format, SnapshotFormat):
        try:
            table = table_format.snapshot(config.path, config.version)
        except InputError as error:
            if config.version is None:
                raise
            # Else it is no matter of the version: rights, say, or a package that is not here.
            if not (isinstance(error, NotThereError) or _can_be_read(config, table_format)):
                raise
            why = str(error).removeprefix(f"{redacted(config.path)}: ")
            raise VersionGoneError(config.path, config.version, why) from error
        log.info("table", of=field, path=config.path, version=table.version)
        return table
    assert isinstance(table_format, FileFormat)
    try:
        files, skipped = find_files(
            config.path,
            table_format.SUFFIXES,
            lambda first: table_format.is_like(first, id_name),
            config.success_file,
        )
    except NoFilesError as error:
        raise advised(error, error.left_out, config.format, id_name, field) from error
    except LakehouseError as error:
        advice = "Write its rows to a folder of Parquet files, and name that"
        if error.format is not None:
            advice = f"Read it as one: --set {field}.format={error.format} --set {field}.path={error.place}"
        raise InputError(with_advice(str(error), advice)) from error
    return Snapshot(files, skipped=skipped)


def _can_be_read(config: InputConfig | WholeTableConfig, table_format: SnapshotFormat) -> bool:
    """Whether the latest version can."""
    try:
        table_format.snapshot(config.path, None)
    except RayrankError:
        return False
    return True


def places(tables: Iterable[InputConfig | WholeTableConfig]) -> Iterator[str]:
    """`directory_of` those that lie somewhere."""
    return (place for table in tables if (place := directory_of(table)) is not None)


def directory_of(config: InputConfig | WholeTableConfig) -> str | None:
    """Where the table lies, for every process; None where its path is a name and no place."""
    if not format_named(config.format).TRAITS.path_is_place:
        return None
    return absolute(config.path).rstrip("/")
