"""Pure: candidates and texts in one table, so that one shuffle brings both sides of a join together.

A row is a candidate (`is_text` false) or a text, which has its id and itself in the columns where candidates
have theirs. `key` is a hash of the id that the next shuffle goes by; `file` (a number) and `row` tell where a
row stood; `reason` and `field`, why a row can't be used.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.tables.input.arrow_types import wide_type
from pipeline.tables.input.cleaning import Refusals, valid_text
from pipeline.tables.input.files import SourceFile

STRETCH_ROWS, STRETCH_BYTES = 16_384, 2**28
"""Where each row gets a copy of a text: bounds memory, and a text array, which ends at 2 GiB."""


def rows_schema(query_id: pa.DataType, passage_id: pa.DataType, others: dict[str, pa.DataType]) -> pa.Schema:
    return pa.schema(
        [
            ("key", pa.int64()),
            ("is_text", pa.bool_()),
            ("file", pa.int32()),
            ("row", pa.int64()),
            ("query_id", query_id),
            ("query", pa.string()),
            ("passage_id", passage_id),
            ("passage", pa.string()),
            ("others", pa.struct(list(others.items()))),
            ("reason", pa.string()),
            ("field", pa.string()),
        ]
    )


def candidate_rows(columns: dict[str, Any], refusals: Refusals, schema: pa.Schema) -> pa.Table:
    """Candidates, with the reason where an id is null or no text, or the reader refused the row."""
    _refuse_ids(columns, ["query_id", "passage_id"], refusals)
    return _table({**columns, **refusals.columns}, is_text=False, schema=schema)


def text_rows(columns: dict[str, Any], kind: str, refusals: Refusals, schema: pa.Schema) -> pa.Table:
    """Texts of one kind ("query", "passage"), with the reason where one can't be used: a null text is none,
    and no mistake. columns: `title` where there is one, which stands in the text by now.
    """
    _refuse_ids(columns, [f"{kind}_id"], refusals)
    for name in ("title", kind):
        if name in columns:
            refusals.add(~valid_text(columns[name]), "invalid_text", name)
    return _table({**columns, **refusals.columns}, is_text=True, schema=schema)


def _refuse_ids(columns: dict[str, Any], names: list[str], refusals: Refusals) -> None:
    """What is no text is made null: the rejects must be readable."""
    for name in names:
        column = columns[name]
        valid = valid_text(column)
        refusals.add(~valid, "invalid_text", name)
        columns[name] = pc.if_else(pa.array(valid), column, pa.scalar(None, column.type))
        refusals.add(pc.is_null(column).to_numpy(zero_copy_only=False), f"null_{name}")


def keyed(rows: pa.Table, id_name: str) -> pa.Table:
    """With the key for a shuffle by this id; rows without one spread evenly."""
    column = rows[id_name].combine_chunks()
    present = pc.is_valid(column).to_numpy(zero_copy_only=False)
    keys = np.empty(len(column), np.uint64)
    plain = column.drop_null()
    values = plain.to_numpy() if pa.types.is_integer(plain.type) else plain.cast(pa.binary()).to_numpy(False)
    keys[present] = pd.util.hash_array(values, categorize=False)
    keys[~present] = rows["row"].to_numpy()[~present].astype(np.uint64)
    return _replace(rows, "key", pa.array(keys.view(np.int64)))


class Texts:
    """The texts of one kind ("query", "passage") among some rows."""

    def __init__(self, rows: pa.Table, kind: str, files: Sequence[SourceFile]) -> None:
        """files: where the texts came from. Raises InputError where an id has two different texts."""
        texts = rows.filter(pc.and_(rows["is_text"], pc.is_valid(rows[kind])))  # a null text is none
        self._kind = kind
        self._ids, self._values = (texts[name].combine_chunks() for name in (f"{kind}_id", kind))
        first = pc.index_in(self._ids, value_set=self._ids)
        differs = pc.not_equal(self._values, self._values.take(first))
        if pc.any(differs).as_py():
            again = pc.index(differs, True).as_py()
            pair = texts.select(["file", "row"]).take(pa.array([again, first[again].as_py()])).to_pylist()
            there, here = sorted(pair, key=lambda place: (place["file"], place["row"]))
            raise InputError(
                f"{files[here['file']].url} row {here['row']}: {kind} id {self._ids[again].as_py()!r} has"
                f" another text than in {files[there['file']].url} row {there['row']}"
            )

    def attach(self, candidates: pa.Table) -> Iterator[pa.Table]:
        """The candidates with their texts, or with the reason no_KIND_text, in stretches of some size: many
        may share a long one.
        """
        ids = candidates[f"{self._kind}_id"].combine_chunks()
        places = pc.index_in(ids, value_set=self._ids, skip_nulls=True)
        for start, stop in _stretches(_bytes_of(self._values).take(places)):
            some, found = candidates.slice(start, stop - start), self._values.take(places[start:stop])
            missing = pc.if_else(pc.is_null(found), f"no_{self._kind}_text", pa.scalar(None, pa.string()))
            some = _replace(some, "reason", pc.coalesce(some["reason"], missing))
            yield _replace(some, self._kind, found)


def candidates_of(rows: pa.Table) -> pa.Table:
    return rows.filter(pc.invert(rows["is_text"]))


def _bytes_of(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    lengths = pc.binary_length(texts).cast(pa.int64())
    return lengths.combine_chunks() if isinstance(lengths, pa.ChunkedArray) else lengths


def _stretches(sizes: pa.Array) -> Iterator[tuple[int, int]]:
    """Consecutive rows together, up to STRETCH_ROWS of them and STRETCH_BYTES; one that has more is alone.

    sizes: the bytes of each row's texts, null for none.
    """
    ends = np.cumsum(sizes.fill_null(0).to_numpy())
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = int(np.searchsorted(ends, before + STRETCH_BYTES, side="right"))
        stop = min(max(stop, start + 1), start + STRETCH_ROWS, len(ends))
        yield start, stop
        start = stop


def ordered_candidates(rows: pa.Table) -> Iterator[pa.Table]:
    """In stretches of some size: each query's rows together in their order, the queries in the order of their
    first rows.
    """
    candidates = candidates_of(rows)
    file, row = (candidates[name].to_numpy() for name in ("file", "row"))
    order = np.lexsort((row, file))
    ids = candidates["query_id"].combine_chunks().take(pa.array(order))
    # Codes are given in the order of appearance; rows without an id come last.
    codes = ids.dictionary_encode().indices.fill_null(len(ids)).to_numpy()
    order = order[np.argsort(codes, kind="stable")]
    texts = [_bytes_of(candidates[name]).fill_null(0) for name in ("query", "passage")]
    # In one piece, which is taken from without a copy of the whole.
    wide = pa.schema([field.with_type(wide_type(field.type)) for field in candidates.schema])
    whole = candidates.cast(wide).combine_chunks()
    for start, stop in _stretches(pc.add(*texts).take(pa.array(order))):
        yield whole.take(pa.array(order[start:stop])).cast(candidates.schema)


def _table(columns: dict[str, Any], schema: pa.Schema, *, is_text: bool) -> pa.Table:
    length = len(columns["row"])
    columns = {"key": pa.array(np.zeros(length, np.int64)), "is_text": pa.repeat(is_text, length), **columns}
    return pa.table(
        [columns.get(field.name, pa.nulls(length, field.type)) for field in schema], schema=schema
    )


def _replace(rows: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), name, column)
