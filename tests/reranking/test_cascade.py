"""The order that levels give, without a model. test_levels.py has the job."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.levels import FuseConfig, fuse
from pipeline.placement import JobActors
from pipeline.ranking import original_ranks
from pipeline.reranking.cascade import Level, add_level, ranked_by, seen, with_run_columns
from pipeline.scoring import ScorerConfig
from pipeline.tables.schema import result_schema


def levels(*keeps: int | None, fuse: FuseConfig | None = None) -> list[Level]:
    """Each sees what the one before keeps; the last one may fuse."""
    sees = [None, *keeps[:-1]]
    last = len(keeps) - 1
    scorer, actors = ScorerConfig(model="some/model"), JobActors()
    return [
        Level(
            number, f"levels.{number}.", scorer, actors, sees[number], keep, fuse if number == last else None
        )
        for number, keep in enumerate(keeps)
    ]


def candidates(*queries: int) -> pa.Table:
    """queries: how many candidates each has; passages are numbered through."""
    ids = [query for query, count in enumerate(queries) for _ in range(count)]
    return pa.table(
        {"query_id": pa.array(ids, pa.int64()), "passage_id": pa.array(range(len(ids)), pa.int64())}
    )


def run(table: pa.Table, cascade: list[Level], scores: list[list[float]]) -> pa.Table:
    """What all levels give, where level n scores candidate i with scores[n][i]."""
    results = pa.table({"rank": pa.array(original_ranks(table["query_id"]), pa.int32())})
    for level, every in zip(cascade, scores, strict=True):
        theirs = pa.array(every, pa.float32()).filter(seen(results, level.sees))
        zeros = pa.array([0] * len(theirs), pa.int32())
        own = pa.table([theirs, zeros, zeros, zeros], schema=result_schema(()))
        results = ranked_by(level, cascade, table, add_level(level, results, own))
    return with_run_columns(cascade, results)


def test_what_a_level_cuts_keeps_its_order_below_what_went_on() -> None:
    results = run(candidates(5), levels(3, 2, None), [[1, 2, 3, 4, 5], [0, 0, 9, 8, 7], [0, 0, 1, 2, 0]])
    assert results["level_0_rank"].to_pylist() == [5, 4, 3, 2, 1]
    assert results["level_1_rank"].to_pylist() == [None, None, 1, 2, 3]
    assert results["level_2_rank"].to_pylist() == [None, None, 2, 1, None]
    assert results["rank"].to_pylist() == [5, 4, 2, 1, 3]
    assert results["level_2_score"].to_pylist() == [None, None, 1, 2, None]
    assert results["score"].to_pylist() == [np.float32(1 / rank) for rank in (5, 4, 2, 1, 3)]


def test_equal_scores_rank_by_passage_id_at_the_edge_of_what_is_kept() -> None:
    table = pa.table({"query_id": [0] * 3, "passage_id": ["c", "b", "a"]})
    results = run(table, levels(2, None), [[1, 1, 1], [5, 5, 5]])
    assert results["level_1_rank"].to_pylist() == [None, 2, 1]
    assert results["rank"].to_pylist() == [3, 2, 1]


@given(st.data())
def test_ranks_are_whole_and_later_levels_stand_above(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    keeps = sorted(data.draw(st.lists(st.integers(1, 7), min_size=2, max_size=3)), reverse=True)
    table, some = candidates(*sizes), st.floats(-2, 2, width=16)
    scores = [data.draw(st.lists(some, min_size=sum(sizes), max_size=sum(sizes))) for _ in keeps]
    rows = [
        row | {"query": query}
        for row, query in zip(
            run(table, levels(*keeps), scores).to_pylist(), table["query_id"].to_pylist(), strict=True
        )
    ]
    for query, size in enumerate(sizes):
        ranked = sorted((row for row in rows if row["query"] == query), key=lambda row: row["rank"])
        assert [row["rank"] for row in ranked] == list(range(1, size + 1))
        by_score = sorted(ranked, key=lambda row: -row["score"])
        assert ranked == by_score
        depths = [
            sum(row[f"level_{level}_rank"] is not None for level in range(len(keeps))) for row in ranked
        ]
        assert depths == sorted(depths, reverse=True)
        seen_by = [depths.count(at) for at in range(len(keeps), 0, -1)]
        assert np.cumsum(seen_by).tolist()[::-1] == [min(size, most) for most in (size, *keeps[:-1])]
        last = [row[f"level_{depth - 1}_rank"] for row, depth in zip(ranked, depths, strict=True)]
        assert last == list(range(1, size + 1))


def test_reciprocal_ranks_of_the_levels_are_added() -> None:
    table, scores = candidates(3, 1), [[3, 2, 1, 0], [1, 2, 3, 0]]
    arrays = [pa.array(each, pa.float32()) for each in scores]
    found = fuse(arrays, table, FuseConfig(k=10, weights=(2.0, 1.0))).to_pylist()
    assert found == pytest.approx([2 / 11 + 1 / 13, 2 / 12 + 1 / 12, 2 / 13 + 1 / 11, 3 / 11], 1e-6)


def test_weighted_scores_are_put_between_0_and_1_among_what_the_level_saw() -> None:
    fusing = FuseConfig(method="weighted", weights=(1.0, 0.5))
    # Of level 0's scores the 0 is not looked at: level 1 did not see it.
    results = run(candidates(4), levels(3, None, fuse=fusing), [[10, 8, 6, 0], [1, 3, 2, 0]])
    assert results["level_1_fused"].to_pylist() == pytest.approx([1.0, 1.0, 0.25, None])
    assert results["level_1_rank"].to_pylist() == [1, 2, 3, None]
    assert results["rank"].to_pylist() == [1, 2, 3, 4]
