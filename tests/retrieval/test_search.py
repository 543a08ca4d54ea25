"""The top k that is gathered from shard after shard."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.retrieval.dense import best_of
from pipeline.retrieval.search import Best, kth_largest, merged
from pipeline.retrieval.vectors import Vectors


def table(shards: list[int], k: int, scores: "np.ndarray[tuple[int, int], np.dtype[np.float32]]") -> pa.Table:
    """Of (queries, passages) scores; passage n has id n, and stands in the shard n % 7."""
    best = Best(len(scores), k, pa.int64())
    for shard in shards:
        passages = np.arange(shard, scores.shape[1], 7)
        hits, rows = (scores[:, passages] >= best.floor[:, None]).nonzero()
        best.add(shard, hits, scores[hits, passages[rows]], pa.array(passages[rows]), rows)
    return best.table()


@pytest.mark.parametrize("k", [1, 10, 500])
def test_it_is_that_of_all_passages_whatever_the_order_of_shards(k: int) -> None:
    scores = np.random.default_rng(5).integers(0, 40, (6, 200)).astype(np.float32)
    found = table([3, 0, 6, 1, 5, 2, 4], k, scores)
    for query, row in enumerate(scores):
        order = np.lexsort((np.arange(len(row)), -row))[:k]
        mine = found.filter(pa.compute.equal(found["query"], query))
        assert mine["passage_id"].to_pylist() == order.tolist()
        assert mine["score"].to_pylist() == row[order].tolist()
        assert mine["rank"].to_pylist() == list(range(1, len(order) + 1))
    parts = [table(shards, k, scores) for shards in ([6, 2], [0, 1, 3], [4, 5])]
    assert merged(parts, k) == found


def test_the_kth_largest_of_each_query() -> None:
    queries = np.array([0, 0, 0, 0, 1, 3, 3])
    scores = np.array([1.0, 3.0, 2.0, 1.9, 5.0, 4.0, 4.0], np.float32)
    assert kth_largest(queries, scores, 2, 4).tolist() == [2.0, -np.inf, -np.inf, 4.0]


def test_products_near_the_smallest_numbers_of_the_dtype_are_compared_too() -> None:
    """Where the last bits of the smallest numbers are, margins in proportion round to nothing."""
    chance = np.random.default_rng(0)
    values = (chance.standard_normal((5000, 3)) * 1e-20).astype(np.float32)[chance.integers(0, 714, 5000)]
    queries, ids = values[chance.integers(0, 5000, 33)], chance.permutation(5000)
    found = Best(len(queries), 100, pa.int64())
    for first, last in pairwise((0, 2909, 3318, 5000)):
        part = Vectors(values[first:last], np.arange(last - first), np.array([]))
        hits, scores, rows = best_of(torch.from_numpy(queries), part, found.floor, 100, cosine=False)
        found.add(first, hits, scores, pa.array(ids[first:last]).take(pa.array(rows)), rows)
    true = (queries.astype(np.float64) @ values.astype(np.float64).T).astype(np.float32)
    expected = [ids[np.lexsort((ids, -row))[:100]].tolist() for row in true]
    assert found.table()["passage_id"].to_pylist() == [passage for row in expected for passage in row]
