"""A table as it was at one moment: what a lakehouse table holds, however it changes while the job runs."""

import importlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.input.arrow_types import is_list
from pipeline.tables.input.deleted_rows import DeletedRows
from pipeline.tables.input.files import SourceFile, find_file, without
from pipeline.tables.input.partitions import Partitions
from pipeline.tables.input.traits import Traits

_THREADS = 16
_FIELD_ID = b"PARQUET:field_id"
NAMES = b"rayrank:names"
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
        return without(find_file(url)._replace(partitions=partitions), deleted)

    with ThreadPoolExecutor(_THREADS) as threads:
        return sorted(threads.map(find, places), key=lambda file: file.url)


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
                " replaced or given another shape later, or what is in it was renamed. Rewrite the table's"
                " data files"
            )
    return declared


def held_names(held: pa.Schema, declared: pa.Schema) -> dict[str, str]:
    """Of the columns that a table declares, those that a data file holds, with their names there.

    Iceberg tells columns by numbers, and those of files that have none by the names in its name mapping.
    """
    by_id = {_id(each): each.name for each in held if _id(each) is not None}
    found = dict[str, str]()
    for column in declared:
        if _id(column) is None:
            names = [column.name]
        elif by_id:
            names = [by_id[_id(column)]] if _id(column) in by_id else []
        else:
            names = json.loads((column.metadata or {}).get(NAMES, b"[]"))
        found.update((column.name, name) for name in names if name in held.names)
    return found


def _tells_all(held: pa.Schema, column: pa.Field) -> bool:
    """Whether the file lacks a column that was not found. One without numbers and names tells nothing."""
    numbered = any(_id(each) is not None for each in held)
    return numbered or _id(column) is None or NAMES in column.metadata


def _holds(declared: pa.Field, held: pa.Field) -> bool:
    """Whether both are the same column, with all that is in it; values may have been of a narrower type."""
    if _id(held) is not None and _id(declared) not in (None, _id(held)):
        return False
    one, other = declared.type, held.type
    if pa.types.is_struct(one):
        inside = {each.name: each for each in other} if pa.types.is_struct(other) else {}
        return all(each.name in inside and _holds(each, inside[each.name]) for each in one)
    if is_list(one):
        return is_list(other) and _holds(one.value_field, other.value_field)
    if pa.types.is_map(one):
        is_map = bool(pa.types.is_map(other))
        return is_map and _holds(one.key_field, other.key_field) and _holds(one.item_field, other.item_field)
    return True


def _id(column: pa.Field) -> bytes | None:
    """Iceberg's number of a column, which its name may leave."""
    return (column.metadata or {}).get(_FIELD_ID)
