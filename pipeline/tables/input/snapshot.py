"""A table as it was at one moment: what a lakehouse table holds, however it changes while the job runs."""

import hashlib
import importlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.input.arrow_types import fields_of, is_list, plain_type, with_fields
from pipeline.tables.input.deleted_rows import DeletedRows
from pipeline.tables.input.files import SourceFile, find_file, with_columns, without
from pipeline.tables.input.partitions import Partitions
from pipeline.tables.input.traits import Traits

_THREADS = 16
_FIELD_ID = b"PARQUET:field_id"
_NAMES = b"rayrank:names"
"""In a declared column's metadata: the names, as JSON, that it has in files without numbers."""


@dataclass(frozen=True)
class Snapshot:
    files: list[SourceFile]
    version: int | None = None
    """Of the table; None where it has none."""
    schema: pa.Schema | None = None
    """The columns as the table declares them; None where every file speaks for itself."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Files that are not read, with the reason."""

    def read_as(self, columns: list[str]) -> "Snapshot":
        """The same, each file known by what the table declares these columns to be, too: a table can rename
        and replace columns and leave its files as they are.
        """
        assert self.schema is not None  # else no column is declared
        told = [_told(self.schema.field(name)) for name in sorted({*columns} & {*self.schema.names})]
        digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
        return replace(self, files=[with_columns(file, digest) for file in self.files])


def library(module: str, traits: Traits) -> Any:
    """The package that reads a format of these traits. Raises InputError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"format {traits.extra} needs a package that is not here ({error.name}):"
            f" pip install 'rayrank[{traits.extra}]'"
        ) from error


def object_store_options() -> dict[str, str]:
    """What the stores of deltalake and lance ask for besides what they find in the environment themselves."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL", ""))
    plain = {"allow_http": "true"} if endpoint.startswith("http:") else {}
    return {"aws_endpoint": endpoint, **plain} if endpoint else {}


def data_files(places: Iterable[tuple[str, Partitions, DeletedRows]]) -> list[SourceFile]:
    """The data files at these URLs, sorted by path. Raises InputError for one that is not there."""

    def find(place: tuple[str, Partitions, DeletedRows]) -> SourceFile:
        url, partitions, deleted = place
        return without(find_file(url, partitions), deleted)

    with ThreadPoolExecutor(_THREADS) as threads:
        return sorted(threads.map(find, places), key=lambda file: file.url)


def with_names(column: pa.Field, names: list[str]) -> pa.Field:
    """A declared column, or a field in one, that has one of these names in data files without numbers."""
    return column.with_metadata({**(column.metadata or {}), _NAMES: json.dumps(names)})


def with_number(column: pa.Field, number: int) -> pa.Field:
    """A declared column, or a field in one, that has this number in data files."""
    return column.with_metadata({**(column.metadata or {}), _FIELD_ID: str(number)})


def declared_columns(
    url: str, held: pa.Schema, partitions: Partitions, names: list[str], declared: pa.Schema
) -> pa.Schema:
    """What the rows of a data file are, as its table declares them.

    Raises InputError where the file holds one of the columns `names` in another shape: the table's columns
    were changed after the file was written. A column, or a field in one, that is not there at all is null, if
    the table lets it be.
    """
    theirs = held_names(held, declared)
    for name in names:
        if name not in declared.names or name in partitions:
            continue
        column = declared.field(name)
        if not _stands(column, held, theirs):
            raise InputError(
                f"{url}: column {name!r} does not stand in this data file as the table declares it: it was"
                " replaced or given another shape later, or its value stands in the table's metadata alone,"
                " in a type that is not read from there. Rewrite the table's data files"
            )
    return declared


def held_names(held: pa.Schema, declared: pa.Schema) -> dict[str, str]:
    """Of the columns that a table declares, those that a data file holds, with their names there.

    Iceberg tells columns by numbers, and those of files that have none by the names in its name mapping;
    Delta with column mapping by numbers, or by names that stay when the column is renamed.
    """
    by_id = {number_of(each): each.name for each in held if number_of(each) is not None}
    found = dict[str, str]()
    for column in declared:
        if number_of(column) is None:
            names = _names(column) or [column.name]
        elif by_id:
            names = [by_id[number_of(column)]] if number_of(column) in by_id else []
        else:
            names = _names(column)
        found.update((column.name, name) for name in names if name in held.names)
    return found


def as_declared(held: pa.ChunkedArray, declared: pa.DataType) -> pa.ChunkedArray:
    """A data file's column, `plain`, with the fields in it that its table declares: by the table's names, and
    null where the file was written before them.
    """
    if not fields_of(held.type):
        return held
    return pa.chunked_array([_with_declared(held.combine_chunks(), declared)])


def _with_declared(held: pa.Array, declared: pa.DataType) -> pa.Array:
    if pa.types.is_struct(held.type):
        theirs = held_names(pa.schema(held.type), pa.schema(declared))
        fields = [
            _with_declared(held.field(theirs[each.name]), each.type)
            if each.name in theirs
            else pa.nulls(len(held), plain_type(each.type))
            for each in declared
        ]
        return _struct([each.name for each in declared], fields, held)
    inside = fields_of(held.type)
    if not inside:
        return held
    if pa.types.is_map(held.type):
        pair = [
            _with_declared(held.values.field(at), each.type) for at, each in enumerate(fields_of(declared))
        ]
        kind, below = pa.map_(pair[0].type, pair[1].type), _struct(["key", "value"], pair, held.values)
    else:
        below = _with_declared(held.values, fields_of(declared)[0].type)
        kind = with_fields(held.type, lambda each: each.with_type(below.type))
    own = held.buffers()[: 1 if pa.types.is_fixed_size_list(held.type) else 2]
    return pa.Array.from_buffers(kind, len(held), own, offset=held.offset, children=[below])


def _struct(names: list[str], fields: list[pa.Array], held: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays(fields, names, mask=held.is_null())


def _stands(column: pa.Field, held: pa.Schema, theirs: dict[str, str]) -> bool:
    """Whether a column, or a field in one, is there as declared, or may be null. theirs: of `held_names`."""
    if column.name in theirs:
        return _holds(column, held.field(theirs[column.name]))
    return bool(column.nullable) and _tells_all(held, column)


def _tells_all(held: pa.Schema, column: pa.Field) -> bool:
    """Whether the file lacks a column that was not found. One without numbers and names tells nothing."""
    numbered = any(number_of(each) is not None for each in held)
    return numbered or number_of(column) is None or _NAMES in column.metadata


def _holds(declared: pa.Field, held: pa.Field) -> bool:
    """Whether both are the same column, with all that is in it; values may have been of a narrower type."""
    if number_of(held) is not None and number_of(declared) not in (None, number_of(held)):
        return False
    one, other = declared.type, held.type
    if pa.types.is_struct(one):
        if not pa.types.is_struct(other):
            return False
        theirs = held_names(pa.schema(other), pa.schema(one))
        return all(_stands(each, pa.schema(other), theirs) for each in one)
    if is_list(one):
        return is_list(other) and _holds(one.value_field, other.value_field)
    if pa.types.is_map(one):
        is_map = bool(pa.types.is_map(other))
        return is_map and _holds(one.key_field, other.key_field) and _holds(one.item_field, other.item_field)
    return True


def _names(column: pa.Field) -> list[str]:
    names: list[str] = json.loads((column.metadata or {}).get(_NAMES, b"[]"))
    return names


def _told(column: pa.Field) -> list[Any]:
    """All that tells where its values stand in a data file, and of which type they are."""
    inside = [_told(each) for each in fields_of(column.type)]
    return [column.name, number_of(column), _names(column), inside or str(plain_type(column.type))]


def number_of(column: pa.Field) -> int | None:
    """What tells a column, or a field in one, whatever its name; None where it has none."""
    number = (column.metadata or {}).get(_FIELD_ID)
    return None if number is None else int(number)
