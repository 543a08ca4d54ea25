from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ranking import original_ranks, rank

groups = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=8), max_size=5)


def table(query_ids: Sequence[object], passage_ids: Sequence[object]) -> pa.Table:
    return pa.table({"query_id": query_ids, "passage_id": passage_ids})


def test_best_first_and_equal_scores_by_passage_id() -> None:
    candidates = table(["b", "b", "b", "a", "a"], ["p2", "p10", "p1", "x", "y"])
    ranked = rank(candidates, np.array([1, 2, 1, 0, 5], np.float32), top_k=None)
    assert ranked.select(["query_id", "passage_id", "rank"]).to_pydict() == {
        "query_id": ["b", "b", "b", "a", "a"],
        "passage_id": ["p10", "p1", "p2", "y", "x"],
        "rank": [1, 2, 3, 1, 2],
    }
    assert ranked.schema.field("score").type == pa.float32()
    assert ranked.schema.field("rank").type == pa.int32()


@pytest.mark.parametrize(
    ("ids", "order"), [([10, 9], [9, 10]), (["10", "9"], ["10", "9"]), ([b"\xff", b"a"], [b"a", b"\xff"])]
)
def test_ids_order_by_their_type(ids: list[object], order: list[object]) -> None:
    ranked = rank(table(["q", "q"], ids), np.zeros(2, np.float32), top_k=None)
    assert ranked["passage_id"].to_pylist() == order


def test_top_k_is_a_querys() -> None:
    ranked = rank(table(["a"] * 3 + ["b"], ["1", "2", "3", "1"]), np.arange(4, dtype=np.float32), top_k=2)
    assert ranked["passage_id"].to_pylist() == ["3", "2", "1"]


def test_no_candidates() -> None:
    empty = table([], []).cast(pa.schema([("query_id", pa.string()), ("passage_id", pa.string())]))
    assert rank(empty, np.zeros(0, np.float32), top_k=3).num_rows == 0


@given(groups, st.integers(1, 5))
def test_ranks_agree_with_sorting_each_query(scores: list[list[int]], top_k: int) -> None:
    rows = [(f"q{q}", f"p{p}", score) for q, group in enumerate(scores) for p, score in enumerate(group)]
    candidates = table([row[0] for row in rows], [row[1] for row in rows]).cast(
        pa.schema([("query_id", pa.string()), ("passage_id", pa.string())])
    )
    ranked = rank(candidates, np.array([row[2] for row in rows], np.float32), top_k).to_pylist()
    expected = [
        (f"q{q}", f"p{passage}", place)
        for q, group in enumerate(scores)
        for place, passage in enumerate(
            sorted(range(len(group)), key=lambda p: (-group[p], p))[:top_k], start=1
        )
    ]
    assert [(row["query_id"], row["passage_id"], row["rank"]) for row in ranked] == expected


def test_places_begin_anew_with_each_query() -> None:
    assert original_ranks(pa.chunked_array([["b", "b", "a"], ["a", "a", "c"]])).tolist() == [1, 2, 1, 2, 3, 1]
    assert original_ranks(pa.chunked_array([[]], pa.string())).tolist() == []
