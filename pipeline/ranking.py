"""Pure: scores to ranks."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def rank(candidates: pa.Table, scores: npt.NDArray[np.float32], top_k: int | None) -> pa.Table:
    """Order each query's candidates, best first, and keep the best top_k.

    candidates: `query_id` and `passage_id`, a query's rows together; scores: one a row. Returns the
    rows with `score` (float32) and `rank` (int32, from 1), queries in the order they came in. Equal scores
    rank by passage id (numbers by size, text by code point), so that the order never depends on chance.
    """
    query = _run_numbers(candidates["query_id"])
    keyed = candidates.append_column("score", pa.array(scores, pa.float32())).append_column(
        "query_number", query
    )
    order = pc.sort_indices(
        keyed, [("query_number", "ascending"), ("score", "descending"), ("passage_id", "ascending")]
    )
    ordered = keyed.take(order)
    numbers = ordered["query_number"].to_numpy()
    ranks = np.arange(len(numbers)) - np.searchsorted(numbers, numbers) + 1
    ranked = ordered.drop_columns("query_number").append_column("rank", pa.array(ranks, pa.int32()))
    return top(ranked, top_k)


def top(ranked: pa.Table, top_k: int | None) -> pa.Table:
    """The best top_k of each query; all where it is None."""
    return ranked if top_k is None else ranked.filter(pc.less_equal(ranked["rank"], top_k))


def original_ranks(query_ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """1-based place of each row within its query, whose rows stand together."""
    numbers: npt.NDArray[np.int64] = _run_numbers(query_ids).to_numpy()
    return np.arange(len(numbers)) - np.searchsorted(numbers, numbers) + 1


def _run_numbers(query_ids: pa.ChunkedArray) -> pa.Array:
    """0 for the rows of the first query, 1 for those of the second, ..."""
    ids = query_ids.combine_chunks()
    begins = np.zeros(len(ids), np.int64)
    if len(ids):
        begins[1:] = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    return pa.array(np.cumsum(begins))
