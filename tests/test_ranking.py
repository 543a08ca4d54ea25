from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ranking import (
    in_rank_order,
    input_order,
    original_ranks,
    rank,
    ranks,
    reversed_input_order,
    trec_eval_order,
)

groups = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=8), max_size=5)


def table(query_ids: Sequence[object] | pa.Array, passage_ids: Sequence[object] | pa.Array) -> pa.Table:
    return pa.table({"query_id": query_ids, "passage_id": passage_ids})


def test_best_first_and_equal_scores_by_passage_id() -> None:
    candidates = table(["b", "b", "b", "a", "a"], ["p2", "p10", "p1", "x", "y"])
    ranked = rank(candidates, np.array([1, 2, 1, 0, 5], np.float32), top_k=None)
    assert ranked.select(["query_id", "passage_id", "rank"]).to_pydict() == {
        "query_id": ["b", "b", "b", "a", "a"],
        "passage_id": ["p10", "p1", "p2", "y", "x"],
        "rank": [1, 2, 3, 1, 2],
    }
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


@settings(deadline=None)
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


EQUAL = np.array([1, 2, 1, 2, 0], np.float32)


def test_each_rule_for_equal_scores() -> None:
    ids = ["a", "b", "c", "é", "z"]
    assert trec_eval_order(ids, EQUAL.tolist()).tolist() == [3, 1, 2, 0, 4]
    assert input_order(EQUAL).tolist() == [1, 3, 0, 2, 4]
    assert reversed_input_order(EQUAL).tolist() == [3, 1, 2, 0, 4]
    ranked = rank(table(["q"] * 5, ids), EQUAL, top_k=None)
    assert ranked["passage_id"].to_pylist() == ["b", "é", "a", "c", "z"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["a", "ab", "b", "é", "熊", ""])), max_size=12))
def test_trec_evals_order_is_by_score_and_id_both_descending(rows: list[tuple[int, str]]) -> None:
    order = trec_eval_order([passage_id for _, passage_id in rows], [score for score, _ in rows])
    assert [rows[position] for position in order] == sorted(rows, reverse=True)


def test_no_scores_have_an_order() -> None:
    none = np.zeros(0, np.float32)
    orders = (input_order(none), reversed_input_order(none), trec_eval_order([], []))
    assert [order.tolist() for order in orders] == [[], [], []]


@given(groups)
def test_rows_that_stay_where_they_are_get_the_same_ranks(scores: list[list[int]]) -> None:
    ids = [query for query, group in enumerate(scores) for _ in group]
    flat = np.array([score for group in scores for score in group], np.float32)
    candidates = table(pa.array(ids, pa.int64()), pa.array(range(len(ids)), pa.int64()))
    own = ranks(candidates["query_id"], candidates["passage_id"], pa.array(flat))
    ordered = candidates.append_column("rank", own).take(in_rank_order(candidates["query_id"], own))
    assert ordered.equals(rank(candidates, flat, top_k=None))
