"""Parquet, flat (a row a candidate) or nested (a row a query, its candidates as list<struct>).

Our own ranges of rows, read with pyarrow: a scan reads the query ids only, a read streams through the row
groups that overlap. A row group that holds several shards is read once for each of them. The data files of
Delta and Iceberg tables are read here too. Rows that such a table has deleted keep their places: ranges and
row numbers are those of the file.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.tables.input.arrow_rows import (
    Runs,
    candidate_rows,
    checked_schema,
    is_nested,
    untold_types,
    wanted_columns,
)
from pipeline.tables.input.arrow_types import plain_type
from pipeline.tables.input.compression import with_compression
from pipeline.tables.input.files import SourceFile
from pipeline.tables.input.layout import Layout, WholeLayout, reading_schema
from pipeline.tables.input.parquet_footer import typed_by_values
from pipeline.tables.input.parquet_rows import OpenParquet, opened
from pipeline.tables.input.partitions import Partitions, add_partitions, partition_schema
from pipeline.tables.input.shards import FileRange, FileScan
from pipeline.tables.input.snapshot import as_declared, declared_columns, held_names
from pipeline.tables.input.traits import Traits
from pipeline.tables.input.whole_table import (
    RANGE_BYTES,
    TableRows,
    TableScan,
    Types,
    arrow_rows,
    stretch,
    with_partitions,
)

TRAITS = Traits()
SUFFIXES = with_compression(".parquet", ".pq")


def is_like(first: bytes, _id_name: str) -> bool:
    return first.startswith(b"PAR1")


def scan(file: SourceFile, layout: Layout) -> FileScan | None:
    query_id, runs = layout.columns.query_id, Runs(file.deleted)
    with opened(file.url, layout.limits) as table:
        parquet = table.file
        if _rows_left(file, parquet) == 0:
            return None
        rows = _columns(file, parquet, layout)
        schema = checked_schema(file.url, rows, layout)
        untold = untold_types(schema, partition_schema(file.partitions, parquet.schema_arrow), layout)
        nested = is_nested(rows, layout)
        theirs = _names(table, layout.declared)
        sought = [query_id, layout.columns.candidates] if nested else [query_id]
        columns = [theirs[query_id]] if query_id in theirs else []
        columns += [_leaf(parquet, layout, theirs)] if layout.columns.candidates in theirs and nested else []
        for batch in table.batches(range(parquet.num_row_groups), columns):
            part = _with_all(pa.Table.from_batches([batch]), theirs, sought, file.partitions, layout.declared)
            runs.add(part[query_id], _lengths(part[layout.columns.candidates]) if nested else None)
    return runs.scan(file, schema, untold)


def read(file_range: FileRange, layout: Layout, schema: pa.Schema) -> pa.Table:
    target = reading_schema(schema)
    with opened(file_range.file, layout.limits) as table:
        held, theirs = table.file.schema_arrow, _names(table, layout.declared)
        wanted = wanted_columns(layout.declared or partition_schema(file_range.partitions, held), layout)
        parts = []
        for numbers, batch in table.rows(file_range, [theirs[name] for name in wanted if name in theirs]):
            rows = _with_all(batch, theirs, wanted, file_range.partitions, layout.declared)
            parts.append(candidate_rows(rows, numbers, file_range.file, layout, target))
    return pa.concat_tables(parts) if parts else target.empty_table()


def _names(table: OpenParquet, declared: pa.Schema | None) -> dict[str, str]:
    """The columns that can be read of a file, with their names there."""
    if declared is None:
        return {name: name for name in table.names}
    return held_names(table.file.schema_arrow, declared)


def _with_all(
    rows: pa.Table,
    theirs: dict[str, str],
    names: list[str],
    partitions: Partitions,
    declared: pa.Schema | None,
) -> pa.Table:
    """Rows by our names: with the columns that the path alone has, and nulls where the table gained a column
    after the file was written.
    """
    ours = {name: our for our, name in theirs.items()}
    rows = rows.rename_columns([ours[name] for name in rows.column_names])
    rows = add_partitions(rows, names, partitions)
    if declared is not None:
        for at, name in enumerate(rows.column_names):
            if name in declared.names:
                rows = rows.set_column(at, name, as_declared(rows[name], declared.field(name).type))
        for name in (name for name in names if name not in rows.column_names):
            rows = rows.append_column(name, pa.nulls(rows.num_rows, declared.field(name).type))
    return rows


def _rows_left(file: SourceFile, parquet: pq.ParquetFile) -> int:
    """How many rows are not deleted. Raises InputError where the table deletes more than the file has."""
    held = parquet.metadata.num_rows
    if file.deleted.count and file.deleted.positions()[-1] >= held:
        raise InputError(
            f"{file.url}: row {file.deleted.positions()[-1] + 1} is deleted by its table, but the file has"
            f" {held} rows: they do not belong together. Rewrite the table, or restore the file"
        )
    return int(held - file.deleted.count)


def _columns(file: SourceFile, parquet: pq.ParquetFile, layout: Layout) -> pa.Schema:
    """What the rows are: a column without any value may be of any type, but where the table declares one."""
    if layout.declared is None:
        names = [*layout.columns.model_dump().values(), *layout.kept.values()]
        return partition_schema(file.partitions, typed_by_values(parquet, names))
    wanted = wanted_columns(layout.declared, layout)
    return declared_columns(file.url, parquet.schema_arrow, file.partitions, wanted, layout.declared)


def _lengths(lists: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.list_value_length(lists.cast(pa.list_(pa.null())) if pa.types.is_null(lists.type) else lists)


def _leaf(parquet: pq.ParquetFile, layout: Layout, theirs: dict[str, str]) -> str:
    """The Parquet path of the nested passage ids, to count candidates without reading texts."""
    paths = [parquet.schema.column(index).path for index in range(len(parquet.schema))]
    whole = theirs[layout.columns.candidates]
    begin, end = f"{whole}.", f".{_name_inside(parquet.schema_arrow.field(whole), layout)}"
    inside = (str(path) for path in paths if path.startswith(begin) and path.endswith(end))
    return next(inside, whole)  # where it holds no candidate


def _name_inside(held: pa.Field, layout: Layout) -> str:
    """Of the passage ids in a file's candidates."""
    name = layout.columns.passage_id
    if layout.declared is None:
        return name
    declared = layout.declared.field(layout.columns.candidates).type.value_type
    return held_names(pa.schema(held.type.value_type), pa.schema(declared)).get(name, name)


def scan_table(file: SourceFile, layout: WholeLayout) -> TableScan:
    with opened(file.url, layout.limits) as table:
        parquet = table.file
        rows = _rows_left(file, parquet)
        groups = [parquet.metadata.row_group(group) for group in range(parquet.num_row_groups)]
        given = _plain_types(parquet.schema_arrow)
        typed = _whole_columns(file, parquet, layout) if rows else parquet.schema_arrow
    sizes = [(group.num_rows, group.total_byte_size) for group in groups]
    file_ranges = tuple(_table_ranges(file, sizes))
    if not file_ranges:
        return TableScan({}, (), 0, 0)
    types = with_partitions(_plain_types(typed), file.partitions)
    untold = {
        name: kind
        for name, kind in given.items()
        if name in types and pa.types.is_null(types[name]) and kind != types[name]
    }
    # A file holds a repeated text once: its bytes do not tell what the rows take in memory.
    return TableScan(types, file_ranges, rows, None, untold)


def _plain_types(schema: pa.Schema) -> Types:
    return {field.name: plain_type(field.type) for field in schema}


def _whole_columns(file: SourceFile, parquet: pq.ParquetFile, layout: WholeLayout) -> pa.Schema:
    """As `_columns`."""
    held = parquet.schema_arrow
    if layout.declared is None:
        return typed_by_values(parquet, held.names)
    wanted = layout.read(layout.declared.names)
    return declared_columns(file.url, held, file.partitions, wanted, layout.declared)


def _table_ranges(file: SourceFile, groups: list[tuple[int, int]]) -> Iterator[FileRange]:
    """Stretches of row groups, (rows, bytes), of some size; without those that hold no rows."""
    start = stop = size_bytes = 0
    for number, (rows, group_bytes) in enumerate(groups):
        stop, size_bytes = stop + rows, size_bytes + group_bytes
        if stop > start and (size_bytes >= RANGE_BYTES or number == len(groups) - 1):
            part = stretch(file, start, stop)
            if part.deleted.count < stop - start:
                yield part
            start, size_bytes = stop, 0


def read_table(file_range: FileRange, layout: WholeLayout, schema: pa.Schema) -> Iterator[TableRows]:
    with opened(file_range.file, layout.limits) as opened_table:
        theirs = _names(opened_table, layout.declared)
        held = [theirs[name] for name in schema.names if name in theirs]
        for numbers, batch in opened_table.rows(file_range, held):
            rows = _with_all(batch, theirs, schema.names, file_range.partitions, layout.declared)
            yield arrow_rows(rows, numbers, file_range.file, schema)
