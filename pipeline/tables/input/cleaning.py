"""Pure: tell the rows that can be scored from those that can't."""

from collections.abc import Mapping
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.tables.input.arrow_types import fields_of, is_list
from pipeline.tables.input.numeric_columns import as_scores
from pipeline.tables.schema import rejects_schema

_NULL_REASONS = {
    "query_id": "null_query_id",
    "query": "null_query",
    "passage_id": "null_passage_id",
    "passage": "null_passage",
}


def clean(rows: pa.Table, needed_score: str | None = None) -> tuple[pa.Table, pa.Table]:
    """Split a candidates table in those that can be scored and the rejects, each in the input's order.

    rows: `candidates_schema` with `file`, and `reason` and `field` where the reader already refused a row. A
    row has the first reason that applies: the reader's, then the order of `schema.REASONS`. The first row of
    a pair that comes several times is kept. needed_score: the kept column in which each row must have a
    score.
    """
    refusals = Refusals(rows["reason"], rows["field"])
    for column, name in _NULL_REASONS.items():
        refusals.add(pc.is_null(rows[column]).to_numpy(), name)
    for column in ("query_id", "query", "passage_id", "passage"):
        refusals.add(~valid_text(rows[column]), "invalid_text", column)
    kept = rows["kept"].combine_chunks()
    for field, column in zip(kept.type, kept.flatten(), strict=True):
        refusals.add(~valid_text(column), "invalid_text", field.name)
    if needed_score is not None:
        scores = as_scores(pc.struct_field(kept, needed_score))
        refusals.add(scores.is_null().to_numpy(zero_copy_only=False), "no_first_stage_score")
    refusals.add(_repeated(rows, refusals.good), "duplicate_pair")
    good = refusals.good
    schema = rejects_schema(rows.schema.field("query_id").type, rows.schema.field("passage_id").type)
    scored = rows.drop_columns(["reason", "field"])
    for name, column in refusals.columns.items():
        rows = rows.set_column(rows.column_names.index(name), name, column)
    refused = rows.filter(pc.invert(good))
    columns = [_safe_id(refused[name]) if "_id" in name else refused[name] for name in schema.names]
    return scored.filter(good), pa.table(columns, schema=schema)


class Refusals:
    """Why rows can't be used: of each the first reason that was found, and the field that it is about."""

    def __init__(self, reasons: pa.ChunkedArray, fields: pa.ChunkedArray) -> None:
        """Of all rows; null of those that nothing is known against."""
        self._reasons, self._fields = (
            np.array(column.to_pylist(), dtype=object) for column in (reasons, fields)
        )

    @classmethod
    def none(cls, rows: int) -> Self:
        nulls = pa.chunked_array([pa.nulls(rows, pa.string())])
        return cls(nulls, nulls)

    def add(self, where: npt.NDArray[np.bool_], reason: str, field: str | None = None) -> None:
        """where: of all rows, those that the reason holds for."""
        new = where & pd.isna(self._reasons)
        self._reasons[new], self._fields[new] = reason, field

    def renamed(self, fields: Mapping[str, str]) -> Self:
        """The same, with other names for fields."""
        names = pa.chunked_array([[field and fields[field] for field in self._fields]], pa.string())
        return type(self)(pa.chunked_array([pa.array(self._reasons, pa.string())]), names)

    @property
    def good(self) -> pa.BooleanArray:
        """Of all rows, which can be used."""
        return pa.array(pd.isna(self._reasons))

    @property
    def columns(self) -> dict[str, pa.Array]:
        """`reason` and `field` of all rows."""
        return {
            "reason": pa.array(self._reasons, pa.string()),
            "field": pa.array(self._fields, pa.string()),
        }


def valid_text(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """False where a string's bytes are not UTF-8, which a Parquet file may well hold; also one in a list."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return np.concatenate([np.zeros(0, bool), *map(_valid_chunk, chunks)])


def _valid_chunk(chunk: pa.Array) -> npt.NDArray[np.bool_]:
    if _is_valid(chunk):
        return np.ones(len(chunk), bool)
    if pa.types.is_nested(chunk.type):
        return np.array([_is_valid(chunk.take([row])) for row in range(len(chunk))], bool)
    return np.array([value is None or is_utf8(value) for value in chunk.cast(pa.binary()).to_pylist()], bool)


def _is_valid(chunk: pa.Array) -> bool:
    """Of its texts alone: what else may be odd, a time of 24:00 say, passes through."""
    if pa.types.is_map(chunk.type):
        chunk = chunk.cast(pa.list_(pa.struct(fields_of(chunk.type))))
    if pa.types.is_struct(chunk.type):
        return all(map(_is_valid, chunk.flatten()))
    if is_list(chunk.type):
        return chunk.null_count == len(chunk) or _is_valid(pc.list_flatten(chunk))
    if not pa.types.is_string(chunk.type):
        return True
    try:
        chunk.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def is_int64(value: object) -> bool:
    """Whether it can be an id that is an integer."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def is_unicode(text: str) -> bool:
    """False for lone surrogates, which stand for bytes that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _repeated(rows: pa.Table, good: pa.Array) -> npt.NDArray[np.bool_]:
    ids = rows.select(["query_id", "passage_id"]).append_column("place", pa.array(np.arange(rows.num_rows)))
    first = (
        ids.filter(good).group_by(["query_id", "passage_id"], use_threads=False).aggregate([("place", "min")])
    )
    repeated: npt.NDArray[np.bool_] = good.to_numpy(zero_copy_only=False).copy()
    repeated[first["place_min"].to_numpy()] = False
    return repeated


def _safe_id(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The id, or null where it is not valid text: the rejects must be readable."""
    return pc.if_else(pa.array(valid_text(column)), column, pa.scalar(None, column.type))
