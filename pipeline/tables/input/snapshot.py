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
        if self.schema is None:
            return self
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
    were changed after the file was written. A column that is not there at all is null, if the table lets it
    be.
    """
    theirs = held_names(held, declared)
    for name in names:
        if name not in declared.names or name in partitions:
            continue
        column = declared.field(name)
        if name in theirs:
            stands = _holds(column, held.field(theirs[name]))
        else:
            stands = column.nullable and _tells_all(held, column)
        if not stands:
            raise InputError(
                f"{url}: column {name!r} does not stand in this data file as the table declares it: it was"
                " replaced or given another shape later, as by a new field in it. Rewrite the table's data"
                " files"
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
    """A data file's column, with the table's names of the fields in it. Those that it lacks keep theirs."""
    named = _named(held.type, declared)
    if named == held.type:
        return held
    return pa.chunked_array([chunk.view(named) for chunk in held.chunks], named)


def _named(held: pa.DataType, declared: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_struct(held) and types.is_struct(declared):
        theirs = held_names(pa.schema(held), pa.schema(declared))
        ours = {name: declared.field(our) for our, name in theirs.items()}
        return with_fields(held, lambda each: _as_ours(each, ours.get(each.name), declared))
    if (is_list(held) and is_list(declared)) or (types.is_map(held) and types.is_map(declared)):
        inside = iter(fields_of(declared))
        return with_fields(held, lambda each: each.with_type(_named(each.type, next(inside).type)))
    return held


def _as_ours(held: pa.Field, ours: pa.Field | None, declared: pa.DataType) -> pa.Field:
    if ours is not None:
        return held.with_name(ours.name).with_type(_named(held.type, ours.type))
    taken = held.name in {each.name for each in fields_of(declared)}
    return held.with_name(f"{held.name} (dropped)") if taken else held


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
        theirs = held_names(pa.schema(other), pa.schema(one)) if pa.types.is_struct(other) else {}
        return all(each.name in theirs and _holds(each, other.field(theirs[each.name])) for each in one)
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
