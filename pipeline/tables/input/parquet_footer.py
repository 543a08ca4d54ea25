"""What the footer of a Parquet file tells of its columns, and a look into them where it does not."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.tables.input.arrow_types import is_list, plain_type


def typed_by_values(parquet: pq.ParquetFile, columns: Iterable[str]) -> pa.Schema:
    """The file's schema, with those of `columns` that hold no value of type null, in lists of structs too.

    pandas and others write such a column as numbers, whatever it holds elsewhere.
    """
    schema, wanted = parquet.schema_arrow, set(columns)
    leaves = {parquet.schema.column(at).path: at for at in range(len(parquet.schema))}
    for at, field in enumerate(schema):
        if field.name in wanted:
            schema = schema.set(at, field.with_type(_type(parquet, leaves, field.name, field.type, wanted)))
    return schema


def _type(
    parquet: pq.ParquetFile, leaves: dict[str, int], path: str, data_type: pa.DataType, wanted: set[str]
) -> pa.DataType:
    if path in leaves:
        if plain_type(data_type) in (pa.string(), pa.binary(), pa.null()):  # which tells enough
            return data_type
        return pa.null() if _is_without_value(parquet, leaves[path]) else data_type
    if not (is_list(data_type) and pa.types.is_struct(data_type.value_type)):
        return data_type
    inside = []
    for field in data_type.value_type:
        # Between the list's name and the field's stand two names that each writer chooses.
        below = [
            leaf for leaf in leaves if leaf.startswith(f"{path}.") and leaf.split(".")[-1:] == [field.name]
        ]
        is_one = field.name in wanted and len(below) == 1
        kind = _type(parquet, leaves, below[0], field.type, wanted) if is_one else field.type
        inside.append(field.with_type(kind))
    return pa.list_(pa.struct(inside))


def _is_without_value(parquet: pq.ParquetFile, leaf: int) -> bool:
    groups = range(parquet.num_row_groups)
    return all(_holds_nulls_alone(parquet, group, leaf) for group in groups)


def _holds_nulls_alone(parquet: pq.ParquetFile, group: int, leaf: int) -> bool:
    chunk = parquet.metadata.row_group(group).column(leaf)
    statistics: Any = chunk.statistics
    if statistics is not None and statistics.has_null_count:
        return bool(statistics.null_count == chunk.num_values)
    column = parquet.read_row_group(group, columns=[chunk.path_in_schema]).column(0)
    return "." not in chunk.path_in_schema and column.null_count == len(column)
