"""Columns that stand in a file's path, as Hive and Spark lay tables out: .../lang=en/day=2026-11-20/*.pq

They are text, URL-decoded. A column that the file itself holds goes before one of its path.
"""

from functools import lru_cache
from urllib.parse import unquote

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.storage import named_by

Partitions = dict[str, str | None]

_NULL = "__HIVE_DEFAULT_PARTITION__"


def hive_partitions(url: str) -> Partitions:
    """The values that the directories in `url` name. Files of a directory share the dict: don't change it."""
    return _named_by(named_by(url).rpartition("/")[0])


@lru_cache(maxsize=4096)
def _named_by(directory: str) -> Partitions:
    named: Partitions = {}
    try:
        for key, sign, value in (part.partition("=") for part in directory.split("/")):
            if sign:
                column = unquote(key, errors="strict")
                if column in named:
                    raise InputError(f"{directory}: names the column {column!r} twice; rename a directory")
                named[column] = None if value == _NULL else unquote(value, errors="strict")
    except UnicodeDecodeError as error:
        raise InputError(f"{directory}: names a column whose value is no UTF-8 text; rename it") from error
    return named


def partition_schema(partitions: Partitions, schema: pa.Schema) -> pa.Schema:
    """`schema` with the columns that the path adds."""
    return pa.schema(
        [*schema, *(pa.field(key, pa.string()) for key in partitions if key not in schema.names)]
    )


def add_partitions(rows: pa.Table, names: list[str], partitions: Partitions) -> pa.Table:
    """`rows` with those of the columns `names` that the path alone has."""
    for name in names:
        if name in partitions and name not in rows.column_names:
            rows = rows.append_column(
                name, pa.repeat(pa.scalar(partitions[name], pa.string()), rows.num_rows)
            )
    return rows
