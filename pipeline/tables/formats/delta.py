"""Delta Lake: the data files of one version, which are Parquet.

What the protocol lets a data file differ by from the table is honoured (partition values, columns added,
renamed and dropped, types widened, rows deleted) or refused (features unknown here).
"""

import re
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from pipeline.errors import InputError, NotThereError, RayrankError
from pipeline.tables.formats import parquet
from pipeline.tables.input.arrow_types import with_fields
from pipeline.tables.input.deleted_rows import DeletedRows
from pipeline.tables.input.snapshot import (
    Snapshot,
    data_files,
    library,
    object_store_options,
    with_names,
    with_number,
)
from pipeline.tables.input.traits import Traits
from pipeline.tables.outage import waited_out
from pipeline.tables.storage import absolute, class_for

TRAITS = Traits(extra="delta")
scan, read = parquet.scan, parquet.read
scan_table, read_table = parquet.scan_table, parquet.read_table

_READABLE = {
    "columnMapping",
    "deletionVectors",
    "timestampNtz",
    "typeWidening",
    "typeWidening-preview",
    "v2Checkpoint",
    "vacuumProtocolCheck",
}


_WAY_OUT = "Rewrite the table's files: REORG TABLE delta.`{}` APPLY (PURGE)"


def snapshot(url: str, version: int | None) -> Snapshot:
    """Raises NotThereError where there is no Delta table, InputError where it needs more than this reads."""
    deltalake = library("deltalake", TRAITS)
    try:
        place, options = absolute(url), object_store_options()
        table = waited_out(lambda: deltalake.DeltaTable(place, version, storage_options=options), url)
        _check(url, table)
        actions = waited_out(lambda: pa.table(table.get_add_actions(flatten=True)), url)
        schema = _schema(table)
        deleted = waited_out(lambda: _deleted_rows(url, table), url)
    except RayrankError:
        raise
    except deltalake.exceptions.TableNotFoundError as error:
        raise NotThereError(url, f"not a readable Delta table: {_in_one_line(error)}") from error
    except Exception as error:  # its own, and those of the store
        told_as = class_for(error, InputError)
        raise told_as(f"{url}: not a readable Delta table: {_in_one_line(error)}") from error
    columns = table.metadata().partition_columns
    values = [actions[f"partition.{name}"].cast(pa.string()).to_pylist() for name in columns]
    root = absolute(url).rstrip("/")
    places = [
        (
            _place(root, path),
            dict(zip(columns, row, strict=True)),
            deleted.pop(_name(table, path), DeletedRows()),
        )
        for path, *row in zip(actions["path"].to_pylist(), *values, strict=True)
    ]
    if deleted:  # else its rows would come back
        raise InputError(
            f"{url}: has a deletion vector for {min(deleted)}, which is none of the data files in its log."
            f" {_WAY_OUT.format(url)}"
        )
    return Snapshot(data_files(places), table.version(), schema)


def _in_one_line(error: BaseException) -> str:
    """The library lays its errors out for a terminal, as trees in colours."""
    return " ".join(re.sub(r"\x1b\[\d+m", "", str(error)).replace("\u21b3", "").split())


def _check(url: str, table: Any) -> None:
    if unknown := sorted(set(table.protocol().reader_features or []) - _READABLE):
        raise InputError(f"{url}: has the reader feature {unknown[0]}, which is not read here")
    if (mode := _mapping(table)) not in ("none", "name", "id"):
        raise InputError(f"{url}: has column mapping by {mode!r}; Delta's protocol has name and id")


def _mapping(table: Any) -> str:
    """How data files tell columns: `none`, by their names; `name` and `id`, by names and numbers for that."""
    return str(table.metadata().configuration.get("delta.columnMapping.mode", "none"))


def _schema(table: Any) -> pa.Schema:
    """As Arrow, each column and each field in it with what data files tell it by."""
    schema, mode = pa.schema(table.schema().to_arrow()), _mapping(table)
    return schema if mode == "none" else pa.schema([_mapped(each, mode) for each in schema])


def _mapped(column: pa.Field, mode: str) -> pa.Field:
    given = column.metadata or {}
    mapped = column.with_type(with_fields(column.type, lambda each: _mapped(each, mode)))
    if mode == "id":
        number = given.get(b"delta.columnMapping.id")
        return mapped if number is None else with_number(mapped, int(number))
    name = given.get(b"delta.columnMapping.physicalName")
    return mapped if name is None else with_names(mapped, [name.decode()])


def _deleted_rows(url: str, table: Any) -> dict[str, DeletedRows]:
    """By `_name`, of the data files that have a deletion vector."""
    try:
        vectors = pa.table(table.deletion_vectors())
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # the library's, and no Exception
            raise
        raise InputError(
            f"{url}: its deletion vectors can't be read ({_in_one_line(error)}): one is damaged, or their"
            f" files have more than {2**31 - 1} rows together. {_WAY_OUT.format(url)}"
        ) from error
    masks = (mask.values.to_numpy(zero_copy_only=False) for mask in vectors["selection_vector"])
    return {
        _name(table, file.as_py()): DeletedRows.at(np.flatnonzero(~mask))
        for file, mask in zip(vectors["filepath"], masks, strict=True)
    }


def _name(table: Any, path: str) -> str:
    """Of a data file, the same from the log and from the library, which gives whole URLs."""
    return unquote(path.removeprefix(table.table_uri.rstrip("/") + "/"))


def _place(root: str, path: str) -> str:
    """Paths in the log are URL-encoded, and relative to the table unless it is a clone. Java writes URLs of
    local files with one slash.
    """
    decoded = unquote(path)
    if decoded.startswith("file:/"):
        return f"file:///{decoded.removeprefix('file:').lstrip('/')}"
    return decoded if "://" in decoded or decoded.startswith("/") else f"{root}/{decoded}"
