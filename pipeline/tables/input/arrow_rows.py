"""What the formats that hold Arrow rows share: types checked, runs of queries found, rows made candidates.

Flat tables have a row a candidate, nested ones a row a query, its candidates as list<struct>.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.tables.input.arrow_types import (
    as_lists,
    as_type,
    column_of,
    is_list,
    plain,
    plain_type,
)
from pipeline.tables.input.cleaning import valid_text
from pipeline.tables.input.deleted_rows import DeletedRows, kept
from pipeline.tables.input.files import SourceFile
from pipeline.tables.input.layout import Layout, refuse_repeated, require_columns, scan_schema
from pipeline.tables.input.shards import FileScan, Int64Array
from pipeline.tables.schema import is_id, is_text

BATCH_ROWS = 4096

_Columns = dict[str, Any]
"""An array a column of a `reading_schema`; of `kept` a dict of them, by their names in the run."""


class Runs:
    """Gathers where the queries of one file stand, from its rows in order."""

    def __init__(self, deleted: DeletedRows | None = None) -> None:
        """deleted: of the file; such a row has no query and no candidate."""
        self._deleted = (deleted or DeletedRows()).positions()
        self._ids: list[pa.Array] = []
        self._starts: list[Int64Array] = []
        self._pairs: list[Int64Array] = []
        """Of each run, as far as it is known: it may go on in the rows to come."""
        self._rows = self._pairs_before = 0
        """Rows so far; pairs of rows before the first that has an id."""
        self._has_candidates = False

    def add(self, query_ids: pa.ChunkedArray, candidates: pa.ChunkedArray | None) -> None:
        """The next rows: their query ids and, in a nested table, how many candidates each has.

        A row without a list, null here, is refused as one candidate.
        """
        ids = _null_where_invalid(plain(query_ids))
        mask = kept(self._deleted, self._rows, self._rows + len(ids))
        real = mask if candidates is None else mask & pc.greater(pc.fill_null(candidates, 0), 0).to_numpy()
        self._has_candidates |= bool(real.any())
        if candidates is not None:
            candidates = pc.fill_null(candidates, 1)
        if not mask.all():
            ids = pc.if_else(pa.array(mask), ids, pa.scalar(None, ids.type))
            candidates = pc.if_else(pa.array(mask), 1 if candidates is None else candidates, 0)
        valid = np.flatnonzero(pc.is_valid(ids).to_numpy(zero_copy_only=False))
        known = ids.drop_null()
        begins = np.zeros(0, np.int64)
        if len(known):
            previous = self._ids[-1][-1] if self._ids else pa.scalar(None, known.type)
            first = np.flatnonzero(_begins_run(known, previous))
            begins = valid[first]
        cuts = pairs = np.append(begins, len(ids))
        if candidates is not None:
            counts = np.asarray(candidates.to_numpy(), np.int64)
            pairs = np.append(0, np.cumsum(counts))[cuts]
        if self._pairs:
            self._pairs[-1][-1] += pairs[0]
        else:
            self._pairs_before += int(pairs[0])
        if begins.size:
            self._ids.append(known.take(pa.array(first)))
            self._starts.append(self._rows + begins)
            self._pairs.append(np.diff(pairs))
        self._rows += len(ids)

    def scan(
        self, file: SourceFile, schema: pa.Schema, untold: dict[str, pa.DataType] | None = None
    ) -> FileScan:
        """schema: as `checked_schema` gives it; untold: `FileScan.untold`."""
        ids, begin = pa.nulls(1, schema.field("query_id").type), np.zeros(1, np.int64)
        pairs = np.zeros(1, np.int64)
        if self._ids:
            ids, begin = pa.concat_arrays(self._ids), np.concatenate(self._starts)
            pairs = np.concatenate(self._pairs)
        # Rows without an id before the first run belong to it too.
        begin[0] = 0
        pairs[0] += self._pairs_before
        return FileScan(
            file=file,
            query_ids=ids,
            starts=begin,
            rows=begin + 1,
            pairs=pairs,
            stop=self._rows,
            schema=schema,
            untold=untold or {},
            has_candidates=self._has_candidates,
        )


def checked_schema(url: str, schema: pa.Schema, layout: Layout) -> pa.Schema:
    """The types the run will have. Raises InputError for a missing or wrongly typed column."""
    names = layout.columns
    refuse_repeated(url, schema.names)
    nested = is_nested(schema, layout)
    top = [names.query_id, names.query] + ([] if nested else [names.passage_id, names.passage])
    require_columns(url, top, schema.names)
    outer = inner = {field.name: plain_type(field.type) for field in schema}
    if nested:
        candidate = _candidate_type(schema.field(names.candidates).type, layout)
        refuse_repeated(f"{url}, in {names.candidates}", [field.name for field in candidate])
        inner = {field.name: plain_type(field.type) for field in candidate}
        require_columns(f"{url}, in {names.candidates}", [names.passage_id, names.passage], list(inner))
    kept_types = _kept_types(schema, layout)
    require_columns(url, list(layout.kept.values()), list(kept_types), "output.keep_columns")
    for name, data_type in ((names.query, outer[names.query]), (names.passage, inner[names.passage])):
        if not (is_text(data_type) or pa.types.is_null(data_type)):
            raise InputError(f"{url}: column {name!r} is {data_type}, a text is needed")
    query_id, passage_id = outer[names.query_id], inner[names.passage_id]
    for name, data_type in ((names.query_id, query_id), (names.passage_id, passage_id)):
        if not (is_id(data_type) or pa.types.is_null(data_type)):
            raise InputError(f"{url}: column {name!r} is {data_type}; ids are text, integers or binary")
    return scan_schema(
        query_id, passage_id, {ours: kept_types[theirs] for ours, theirs in layout.kept.items()}
    )


def untold_types(schema: pa.Schema, given: pa.Schema, layout: Layout) -> dict[str, pa.DataType]:
    """`FileScan.untold`: the types in `given` of kept columns that are null in `schema`, a checked one."""
    types = _kept_types(given, layout)
    untold = [each.name for each in schema.field("kept").type if pa.types.is_null(each.type)]
    return {
        name: types[layout.kept[name]] for name in untold if not pa.types.is_null(types[layout.kept[name]])
    }


def _kept_types(schema: pa.Schema, layout: Layout) -> dict[str, pa.DataType]:
    """Of all columns that may be kept; a candidate's go before its query's."""
    inside = []
    if is_nested(schema, layout):
        inside = list(_candidate_type(schema.field(layout.columns.candidates).type, layout))
    return {field.name: plain_type(field.type) for field in [*schema, *inside]}


def is_nested(schema: pa.Schema, layout: Layout) -> bool:
    if layout.columns.candidates not in schema.names or layout.columns.passage_id in schema.names:
        return False
    data_type = schema.field(layout.columns.candidates).type
    if is_list(data_type):
        data_type = data_type.value_type
        return bool(pa.types.is_struct(data_type) or pa.types.is_null(data_type))
    return bool(pa.types.is_null(data_type))


def _candidate_type(data_type: pa.DataType, layout: Layout) -> pa.StructType:
    """Of one candidate. Where no query of the file has any, its columns are without a value."""
    if pa.types.is_null(data_type) or pa.types.is_null(data_type.value_type):
        names = dict.fromkeys([layout.columns.passage_id, layout.columns.passage, *layout.kept.values()])
        return pa.struct([(name, pa.null()) for name in names])
    return data_type.value_type


def wanted_columns(schema: pa.Schema, layout: Layout) -> list[str]:
    """The columns to read: of `schema`, all that the run needs."""
    names = layout.columns
    texts = [names.candidates] if is_nested(schema, layout) else [names.passage_id, names.passage]
    wanted = dict.fromkeys([names.query_id, names.query, *texts, *layout.kept.values()])
    return [name for name in wanted if name in schema.names]


def candidate_rows(batch: pa.Table, row: pa.Array, url: str, layout: Layout, target: pa.Schema) -> pa.Table:
    """Rows of the file as `target`, a `reading_schema`. row: their numbers in the file, 1-based.

    Raises InputError where a value does not fit the type that the table's files have in common.
    """
    if not is_nested(batch.schema, layout):
        return _cast(_rename(batch, row, layout), url, layout, target)
    name = layout.columns.candidates
    lists = batch[name].combine_chunks()
    lists = as_lists(lists, pa.list_(_candidate_type(lists.type, layout)))
    flat = _cast(_flatten(batch, lists, row, layout), url, layout, target)
    return pa.concat_tables(
        [flat, _cast(_null_lists(batch, lists, row, layout, target), url, layout, target)]
    )


def _null_where_invalid(ids: pa.Array) -> pa.Array:
    """An id that is no valid text is rejected when it is read; here it counts as none."""
    valid = pa.array(valid_text(ids))
    return ids if pc.all(valid).as_py() else pc.if_else(valid, ids, pa.scalar(None, ids.type))


def _begins_run(ids: pa.Array, previous: pa.Scalar) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    begins = np.ones(len(ids), bool)
    begins[1:] = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    begins[0] = not previous.is_valid or ids[0] != previous
    return begins


def _rename(batch: pa.Table, row: pa.Array, layout: Layout) -> _Columns:
    names = layout.columns
    return {
        "query_id": plain(batch[names.query_id]),
        "query": plain(batch[names.query]),
        "passage_id": plain(batch[names.passage_id]),
        "passage": plain(batch[names.passage]),
        "kept": {ours: plain(column_of(batch, theirs)) for ours, theirs in layout.kept.items()},
        "row": row,
        "item": pa.nulls(len(row), pa.int32()),
        "reason": pa.nulls(len(row), pa.string()),
        "field": pa.nulls(len(row), pa.string()),
    }


def _flatten(batch: pa.Table, lists: pa.Array, row: pa.Array, layout: Layout) -> _Columns:
    names = layout.columns
    parent = pc.list_parent_indices(lists)
    inner = lists.flatten()
    starts = np.concatenate([[0], np.cumsum(pc.fill_null(pc.list_value_length(lists), 0).to_numpy())])
    inside = {field.name for field in inner.type}
    # Field access by compute looks through the struct's own nulls: a null candidate has a null id.
    item = pa.array(np.arange(len(inner)) - starts[parent.to_numpy()] + 1, pa.int32())
    kept = {
        ours: plain(
            pc.struct_field(inner, theirs) if theirs in inside else column_of(batch, theirs).take(parent)
        )
        for ours, theirs in layout.kept.items()
    }
    return {
        "query_id": plain(batch[names.query_id].take(parent)),
        "query": plain(batch[names.query].take(parent)),
        "passage_id": plain(pc.struct_field(inner, names.passage_id)),
        "passage": plain(pc.struct_field(inner, names.passage)),
        "kept": kept,
        "row": row.take(parent),
        "item": item,
        "reason": pa.nulls(len(inner), pa.string()),
        "field": pa.nulls(len(inner), pa.string()),
    }


def _null_lists(
    batch: pa.Table, lists: pa.Array, row: pa.Array, layout: Layout, target: pa.Schema
) -> _Columns:
    """A row that has no list at all is refused as one candidate."""
    null = lists.is_null()
    count = pc.sum(null).as_py() or 0
    return {
        **{field.name: pa.nulls(count, field.type) for field in target},
        "query_id": plain(batch[layout.columns.query_id]).filter(null),
        "kept": {ours: pa.nulls(count) for ours in layout.kept},
        "row": row.filter(null),
        "reason": pa.array(["null_candidates"] * count, pa.string()),
    }


def _cast(columns: _Columns, url: str, layout: Layout, target: pa.Schema) -> pa.Table:
    names = layout.columns.model_dump()
    kept, fields = columns["kept"], target.field("kept").type
    arrays = [as_type(kept[each.name], each.type, _place(url, layout.kept[each.name])) for each in fields]
    whole = pa.StructArray.from_arrays(arrays, fields=list(fields))
    if not kept:
        whole = pa.array([{}] * len(columns["row"]), fields)
    cast = [
        whole
        if each.name == "kept"
        else as_type(columns[each.name], each.type, _place(url, names.get(each.name, each.name)))
        for each in target
    ]
    return pa.table(cast, schema=target)


def _place(url: str, column: str) -> str:
    return f"{url}: column {column!r}"
