"""Parquet, flat (a row a candidate) or nested (a row a query, its candidates as list<struct>).

Our own ranges of rows, read with pyarrow: a survey reads the query ids only, a read streams through the row
groups that overlap. A row group that holds several shards is read once for each of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.tables.cleaning import valid_text
from pipeline.tables.layout import Layout, reading_schema, require_columns, survey_schema
from pipeline.tables.partitions import add_partitions, partition_schema
from pipeline.tables.schema import is_id, is_text
from pipeline.tables.shards import FileSurvey, Int64Array, Slice
from pipeline.tables.storage import SourceFile, open_input

SUFFIXES: tuple[str, ...] = (".parquet", ".pq")
_BATCH_ROWS = 4096


def survey(file: SourceFile, layout: Layout) -> FileSurvey:
    with _opened(file.url) as parquet:
        present = partition_schema(file.partitions, parquet.schema_arrow)
        schema = _check(file.url, present, layout)
        columns = [layout.columns.query_id] if layout.columns.query_id in parquet.schema_arrow.names else []
        if _is_nested(present, layout):
            columns.append(_leaf(parquet, layout))
        ids: list[pa.Array] = []
        starts: list[Int64Array] = []
        weights: list[Int64Array] = []
        row = 0
        for group in range(parquet.num_row_groups):
            table = parquet.read_row_group(group, columns=columns)
            table = add_partitions(table, [layout.columns.query_id], file.partitions)
            group_ids = _null_where_invalid(_plain(table[layout.columns.query_id]))
            valid = np.flatnonzero(pc.is_valid(group_ids).to_numpy(zero_copy_only=False))
            if valid.size:
                known = group_ids.drop_null()
                previous = ids[-1][-1] if ids else pa.scalar(None, known.type)
                first = np.flatnonzero(_begins_run(known, previous))
                ids.append(known.take(pa.array(first)) if first.size else known[:0])
                starts.append(row + valid[first])
                ids = [part for part in ids if len(part)]
            weights.append(_weights(table, layout))
            row += table.num_rows
    return _file_survey(file, ids, starts, weights, row, schema)


def read(piece: Slice, layout: Layout, schema: pa.Schema) -> pa.Table:
    target = reading_schema(schema)
    with _opened(piece.file) as parquet:
        nested = _is_nested(parquet.schema_arrow, layout)
        own = layout.columns
        texts = [own.candidates] if nested else [own.passage_id, own.passage]
        wanted = list(dict.fromkeys([own.query_id, own.query, *texts, *layout.kept.values()]))
        columns = [name for name in wanted if name in parquet.schema_arrow.names]
        parts = []
        for first, batch in _rows(parquet, piece, columns):
            row = pa.array(np.arange(first + 1, first + 1 + batch.num_rows))
            whole = add_partitions(batch, wanted, piece.partitions)
            parts.append((_flatten if nested else _rename)(whole, row, layout, target))
    return pa.concat_tables(parts) if parts else target.empty_table()


@contextmanager
def _opened(url: str) -> Iterator[pq.ParquetFile]:
    with open_input(url) as stream:
        try:
            yield pq.ParquetFile(stream)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(
                f"{url}: not a readable Parquet file (is input.format right?): {error}"
            ) from error


def _check(url: str, schema: pa.Schema, layout: Layout) -> pa.Schema:
    """The types the run will have from this file. Raises InputError for a missing or wrongly typed column."""
    own = layout.columns
    nested = _is_nested(schema, layout)
    top = [own.query_id, own.query] + ([] if nested else [own.passage_id, own.passage])
    require_columns(url, top, schema.names)
    outer = {field.name: _plain_type(field.type) for field in schema}
    inner: dict[str, pa.DataType] = {}
    if nested:
        candidate = schema.field(own.candidates).type.value_type
        inner = {field.name: _plain_type(field.type) for field in candidate}
        require_columns(f"{url}, in {own.candidates}", [own.passage_id, own.passage], list(inner))
    types, kept_types = inner | outer, outer | inner
    require_columns(url, list(layout.kept.values()), list(types), "output.keep_columns")
    for name in (own.query, own.passage):
        if not is_text(types[name]):
            raise InputError(f"{url}: column {name!r} is {types[name]}, a text is needed")
    for name in (own.query_id, own.passage_id):
        if not is_id(types[name]):
            raise InputError(f"{url}: column {name!r} is {types[name]}; ids are text, integers or binary")
    kept = {ours: kept_types[theirs] for ours, theirs in layout.kept.items()}
    return survey_schema(types[own.query_id], types[own.passage_id], kept)


def _is_nested(schema: pa.Schema, layout: Layout) -> bool:
    if layout.columns.candidates not in schema.names or layout.columns.passage_id in schema.names:
        return False
    data_type = schema.field(layout.columns.candidates).type
    return bool(
        (pa.types.is_list(data_type) or pa.types.is_large_list(data_type))
        and pa.types.is_struct(data_type.value_type)
    )


def _leaf(parquet: pq.ParquetFile, layout: Layout) -> str:
    """The Parquet path of the nested passage ids, to count candidates without reading texts."""
    paths = [parquet.schema.column(index).path for index in range(len(parquet.schema))]
    begin, end = f"{layout.columns.candidates}.", f".{layout.columns.passage_id}"
    return next(str(path) for path in paths if path.startswith(begin) and path.endswith(end))


def _null_where_invalid(ids: pa.Array) -> pa.Array:
    """An id that is no valid text is rejected when it is read; here it counts as none."""
    valid = pa.array(valid_text(ids))
    return ids if pc.all(valid).as_py() else pc.if_else(valid, ids, pa.scalar(None, ids.type))


def _begins_run(ids: pa.Array, previous: pa.Scalar) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    begins = np.ones(len(ids), bool)
    begins[1:] = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    begins[0] = not previous.is_valid or ids[0] != previous
    return begins


def _weights(table: pa.Table, layout: Layout) -> Int64Array:
    """Candidates a row."""
    if layout.columns.candidates not in table.column_names:
        return np.ones(table.num_rows, np.int64)
    lengths = pc.fill_null(pc.list_value_length(table[layout.columns.candidates]), 0)
    return np.asarray(lengths.to_numpy(), np.int64)


def _file_survey(
    file: SourceFile,
    ids: list[pa.Array],
    starts: list[Int64Array],
    weights: list[Int64Array],
    rows: int,
    schema: pa.Schema,
) -> FileSurvey:
    if not ids:
        ids, starts = [pa.nulls(1, schema.field("query_id").type)], [np.zeros(1, np.int64)]
    begin = np.concatenate(starts)
    # Rows without an id before the first run belong to it too.
    begin[0] = 0
    pairs = np.add.reduceat(np.concatenate(weights), begin) if rows else np.zeros(1, np.int64)
    return FileSurvey(file, pa.concat_arrays(ids), begin, begin + 1, pairs, rows, schema)


def _rows(parquet: pq.ParquetFile, piece: Slice, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
    """The rows [start, stop), in batches with the number (0-based) of the first."""
    counts = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
    ends = np.cumsum(counts)
    groups = [g for g, end in enumerate(ends) if end > piece.start and end - counts[g] < piece.stop]
    row = int(ends[groups[0]] - counts[groups[0]]) if groups else 0
    for batch in parquet.iter_batches(_batch_rows(parquet), row_groups=groups, columns=columns):
        first, last = max(row, piece.start), min(row + batch.num_rows, piece.stop)
        if first < last:
            yield first, pa.Table.from_batches([batch.slice(first - row, last - first)])
        row += batch.num_rows
        if row >= piece.stop:
            return


def _batch_rows(parquet: pq.ParquetFile) -> int:
    """Rows a batch: fewer where a row holds many candidates, since an Arrow text array ends at 2 GiB."""
    metadata = parquet.metadata
    most = max(
        metadata.row_group(group).column(column).num_values / max(1, metadata.row_group(group).num_rows)
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    )
    return max(1, int(_BATCH_ROWS / max(1.0, most)))


def _rename(batch: pa.Table, row: pa.Array, layout: Layout, target: pa.Schema) -> pa.Table:
    own = layout.columns
    arrays = {
        "query_id": _plain(batch[own.query_id]),
        "query": _plain(batch[own.query]),
        "passage_id": _plain(batch[own.passage_id]),
        "passage": _plain(batch[own.passage]),
        "kept": _kept({ours: _plain(batch[theirs]) for ours, theirs in layout.kept.items()}, row, target),
        "row": row,
        "item": pa.nulls(len(row), pa.int32()),
        "reason": pa.nulls(len(row), pa.string()),
    }
    return _cast(arrays, target)


def _flatten(batch: pa.Table, row: pa.Array, layout: Layout, target: pa.Schema) -> pa.Table:
    own = layout.columns
    lists = batch[own.candidates].combine_chunks()
    parent = pc.list_parent_indices(lists)
    inner = lists.flatten()
    starts = np.concatenate([[0], np.cumsum(pc.fill_null(pc.list_value_length(lists), 0).to_numpy())])
    inside = {field.name for field in inner.type}
    # Field access by compute looks through the struct's own nulls: a null candidate has a null id.
    item = pa.array(np.arange(len(inner)) - starts[parent.to_numpy()] + 1, pa.int32())
    kept = {
        ours: _plain(pc.struct_field(inner, theirs) if theirs in inside else batch[theirs].take(parent))
        for ours, theirs in layout.kept.items()
    }
    arrays = {
        "query_id": _plain(batch[own.query_id].take(parent)),
        "query": _plain(batch[own.query].take(parent)),
        "passage_id": _plain(pc.struct_field(inner, own.passage_id)),
        "passage": _plain(pc.struct_field(inner, own.passage)),
        "kept": _kept(kept, parent, target),
        "row": row.take(parent),
        "item": item,
        "reason": pa.nulls(len(inner), pa.string()),
    }
    return pa.concat_tables([_cast(arrays, target), _null_lists(batch, lists, row, layout, target)])


def _null_lists(
    batch: pa.Table, lists: pa.Array, row: pa.Array, layout: Layout, target: pa.Schema
) -> pa.Table:
    """A row that has no list at all is refused as one."""
    null = lists.is_null()
    count = pc.sum(null).as_py() or 0
    known = {
        "query_id": _plain(batch[layout.columns.query_id]).filter(null),
        "row": row.filter(null),
        "reason": pa.array(["null_candidates"] * count, pa.string()),
    }
    return _cast({field.name: known.get(field.name, pa.nulls(count, field.type)) for field in target}, target)


def _kept(columns: dict[str, pa.Array], like: pa.Array, target: pa.Schema) -> pa.Array:
    fields = target.field("kept").type
    if not columns:
        return pa.array([{}] * len(like), fields)
    arrays = [columns[field.name].cast(field.type) for field in fields]
    return pa.StructArray.from_arrays(arrays, fields=list(fields))


def _cast(arrays: dict[str, pa.Array], target: pa.Schema) -> pa.Table:
    return pa.table([arrays[field.name].cast(field.type) for field in target], schema=target)


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Without chunks, dictionaries and the large and view variants, which differ in memory only."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return whole.cast(_plain_type(whole.type), safe=False)


def _plain_type(data_type: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(data_type):
        return _plain_type(data_type.value_type)
    if pa.types.is_large_string(data_type) or pa.types.is_string_view(data_type):
        return pa.string()
    if pa.types.is_large_binary(data_type) or pa.types.is_binary_view(data_type):
        return pa.binary()
    return data_type
