import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.tables.input.cleaning import clean, valid_text
from pipeline.tables.input.layout import reading_schema, scan_schema
from pipeline.tables.schema import REASONS

SCHEMA = reading_schema(scan_schema(pa.string(), pa.string(), {}))
few = st.sampled_from(["a", "b", None])
rows_of_a_table = st.lists(
    st.fixed_dictionaries(
        {
            "query_id": few,
            "query": few,
            "passage_id": few,
            "passage": few,
            "reason": st.sampled_from([None, None, None, "malformed_row"]),
        }
    ),
    max_size=20,
)


@settings(deadline=None)
@given(rows_of_a_table)
def test_every_row_is_scored_or_rejected_once(rows: list[dict[str, str | None]]) -> None:
    table = pa.Table.from_pylist([{**row, "row": number} for number, row in enumerate(rows)], schema=SCHEMA)
    good, rejects = clean(table.append_column("file", pa.array(["f"] * len(rows), pa.string())))
    assert sorted(good["row"].to_pylist() + rejects["row"].to_pylist()) == list(range(len(rows)))
    pairs = list(zip(good["query_id"].to_pylist(), good["passage_id"].to_pylist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert not any(
        None in row.values()
        for row in good.select(["query_id", "query", "passage_id", "passage"]).to_pylist()
    )
    assert set(rejects["reason"].to_pylist()) <= REASONS.keys()


@settings(deadline=None)
@given(rows_of_a_table)
def test_a_duplicate_is_one_of_a_row_that_was_kept(rows: list[dict[str, str | None]]) -> None:
    table = pa.Table.from_pylist([{**row, "row": number} for number, row in enumerate(rows)], schema=SCHEMA)
    good, rejects = clean(table.append_column("file", pa.array(["f"] * len(rows), pa.string())))
    first = {(row["query_id"], row["passage_id"]): row["row"] for row in good.to_pylist()}
    for row in rejects.to_pylist():
        if row["reason"] == "duplicate_pair":
            assert first[row["query_id"], row["passage_id"]] < row["row"]


LATE = pa.array([0, 86_400_000_000], pa.int64()).view(pa.time64("us"))
"""24:00:00 is a time of day in SQL, and none to Arrow's checks."""
WIDE = pa.Array.from_buffers(
    pa.decimal128(3, 0),
    2,
    [None, pa.py_buffer((5).to_bytes(16, "little") + (100_000).to_bytes(16, "little"))],
)
GOOD_TEXTS = pa.array(["a", "b"])
BAD_TEXTS = pa.Array.from_buffers(
    pa.string(), 2, [None, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"a\xff")]
)
OFFSETS = pa.array([0, 1, 2], pa.int32())


@pytest.mark.parametrize("odd", [LATE, WIDE])
@pytest.mark.parametrize(("texts", "valid"), [(GOOD_TEXTS, [True, True]), (BAD_TEXTS, [True, False])])
def test_texts_alone_are_checked(odd: pa.Array, texts: pa.Array, valid: list[bool]) -> None:
    assert valid_text(odd).tolist() == [True, True]
    both = pa.StructArray.from_arrays([odd, texts], names=["odd", "text"])
    for column in (
        texts,
        both,
        pa.ListArray.from_arrays(OFFSETS, both),
        pa.FixedSizeListArray.from_arrays(both, 1),
        pa.MapArray.from_arrays(OFFSETS, pa.array(["k", "l"]), both),
        pa.MapArray.from_arrays(OFFSETS, texts, odd),
        pa.ListArray.from_arrays(OFFSETS, pa.ListArray.from_arrays(OFFSETS, texts)),
    ):
        assert valid_text(column).tolist() == valid, column.type
        assert valid_text(pa.concat_arrays([column, pa.nulls(1, column.type)])).tolist() == [*valid, True]
