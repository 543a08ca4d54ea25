"""Iceberg: the data files of one snapshot, as far as they are Parquet without row-level deletes.

A table is the URL of its metadata.json, or catalog://CATALOG/NAMESPACE.TABLE with a catalog of pyiceberg's
own configuration (.pyiceberg.yaml, PYICEBERG_CATALOG__...). Columns are matched by field id: those added
later are null in older files, those renamed later are refused.
"""

from typing import Any

import pyarrow as pa

from pipeline.errors import InputError, NotThereError, RayrankError
from pipeline.tables.formats import parquet
from pipeline.tables.input.snapshot import Snapshot, data_files, library
from pipeline.tables.input.traits import Traits
from pipeline.tables.outage import waited_out
from pipeline.tables.storage import absolute, class_for

TRAITS = Traits(extra="iceberg", path_is_place=False)
scan, read = parquet.scan, parquet.read
scan_table, read_table = parquet.scan_table, parquet.read_table

CATALOG = "catalog://"
_FILE_IO = {"py-io-impl": "pyiceberg.io.fsspec.FsspecFileIO"}
"""The same credentials as for all other files."""
_NO_TABLE = {"NoSuchTableError", "NoSuchNamespaceError"}
"""Errors of pyiceberg, by name: it may not be installed."""


def snapshot(url: str, version: int | None) -> Snapshot:
    """Raises NotThereError where there is no Iceberg table, InputError for one that this can't read."""
    try:
        table = waited_out(lambda: _load(url), url)
        latest = table.current_snapshot()
        # The columns are those of the snapshot, whatever the table became since: a retry asks for its number.
        scan = table.scan(snapshot_id=latest.snapshot_id if version is None and latest else version)
        tasks = waited_out(lambda: list(scan.plan_files()), url)
        schema, taken = _schema(table, scan.projection()), scan.snapshot()
    except RayrankError:
        raise
    except Exception as error:  # each catalog's client has errors of its own
        what = f"not a readable Iceberg table: {str(error) or type(error).__name__}"
        if isinstance(error, FileNotFoundError) or type(error).__name__ in _NO_TABLE:
            raise NotThereError(url, what) from error
        raise class_for(error, InputError)(f"{url}: {what}") from error
    for task in tasks:
        check_readable(url, task)
    return Snapshot(
        data_files((task.file.file_path, {}) for task in tasks), taken and taken.snapshot_id, schema
    )


def check_readable(url: str, task: Any) -> None:
    """task: a FileScanTask. Raises InputError where its rows are not all that stand in a Parquet file."""
    if task.delete_files:
        raise InputError(
            f"{url}: rows of {task.file.file_path} are deleted by delete files, which are not read here."
            " Rewrite the data files: CALL system.rewrite_data_files(table => ...,"
            " options => map('delete-file-threshold', '1'))"
        )
    if task.file.file_format.value != "PARQUET":
        raise InputError(
            f"{task.file.file_path}: is {task.file.file_format.value}, not Parquet, which is read here"
        )


def _load(url: str) -> Any:
    if url.startswith(CATALOG):
        name, _, identifier = url.removeprefix(CATALOG).partition("/")
        return library("pyiceberg.catalog", TRAITS).load_catalog(name).load_table(identifier)
    if not url.endswith(".metadata.json"):
        raise InputError(
            f"{url}: an Iceberg table is named by its metadata file (.../metadata/N-....metadata.json) or as"
            f" {CATALOG}CATALOG/NAMESPACE.TABLE"
        )
    return library("pyiceberg.table", TRAITS).StaticTable.from_metadata(absolute(url), _FILE_IO)


def _identities(table: Any) -> list[Any]:
    """The partition fields whose values files may leave to the table's metadata."""
    fields = [each for spec in table.specs().values() for each in spec.fields]
    return [each for each in fields if str(each.transform) == "identity"]


def _schema(table: Any, columns: Any) -> pa.Schema:
    """As Arrow. Null is forbidden to those columns whose value stands elsewhere when a file lacks them."""
    elsewhere = {each.source_id for each in _identities(table)}
    elsewhere |= {each.field_id for each in columns.fields if each.initial_default is not None}
    return pa.schema(
        arrow.with_nullable(arrow.nullable and each.field_id not in elsewhere)
        for arrow, each in zip(columns.as_arrow(), columns.fields, strict=True)
    )
