"""Iceberg: the data files of the current snapshot, as far as they are Parquet without row-level deletes.

A table is the URL of its metadata.json, or catalog://CATALOG/NAMESPACE.TABLE with a catalog of pyiceberg's
own configuration (.pyiceberg.yaml, PYICEBERG_CATALOG__...). Columns are matched by field id: those added
later are null in older files, those renamed later are refused.
"""

from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.snapshot import Snapshot, data_files, library
from pipeline.tables.storage import absolute

CATALOG = "catalog://"
_FILE_IO = {"py-io-impl": "pyiceberg.io.fsspec.FsspecFileIO"}
"""The same credentials as for all other files."""


def snapshot(url: str) -> Snapshot:
    """Raises InputError for what is no Iceberg table, or one that needs more than this reads."""
    try:
        table = _load(url)
        tasks = list(table.scan().plan_files())
        schema = _schema(table)
    except InputError:
        raise
    except Exception as error:  # each catalog's client has errors of its own
        raise InputError(
            f"{url}: not a readable Iceberg table: {str(error) or type(error).__name__}"
        ) from error
    for task in tasks:
        check_readable(url, task)
    return Snapshot(data_files((task.file.file_path, {}) for task in tasks), schema)


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
        return library("pyiceberg.catalog", "iceberg").load_catalog(name).load_table(identifier)
    if not url.endswith(".metadata.json"):
        raise InputError(
            f"{url}: an Iceberg table is named by its metadata file (.../metadata/N-....metadata.json) or as"
            f" {CATALOG}CATALOG/NAMESPACE.TABLE"
        )
    return library("pyiceberg.table", "iceberg").StaticTable.from_metadata(absolute(url), _FILE_IO)


def _identities(table: Any) -> list[Any]:
    """The partition fields whose values files may leave to the table's metadata."""
    fields = [each for spec in table.specs().values() for each in spec.fields]
    return [each for each in fields if str(each.transform) == "identity"]


def _schema(table: Any) -> pa.Schema:
    """The current columns. Null is forbidden to those whose value stands elsewhere when a file lacks them."""
    elsewhere = {each.source_id for each in _identities(table)}
    elsewhere |= {each.field_id for each in table.schema().fields if each.initial_default is not None}
    numbers = [each.field_id for each in table.schema().fields]
    return pa.schema(
        each.with_nullable(each.nullable and number not in elsewhere)
        for each, number in zip(table.schema().as_arrow(), numbers, strict=True)
    )
