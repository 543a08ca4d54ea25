"""Pure: scores to ranks. All order by score, best first; what they do with equal scores is in their names.

The scores to order by are raw ones: in float32 the sigmoid of every logit above 17 is 1.0, and of every one
below -104 it is 0.0.

`rank` and `ranks`, the job's: by passage id, so that a run never depends on the order of its input.
`trec_eval_order`: by passage id, descending, as trec_eval does before it measures.
`input_order`: as they came, for a list of passages that a caller gave.
`reversed_input_order`: the last of them first, as text-embeddings-inference answers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Int64Array = npt.NDArray[np.int64]


Order = Callable[[npt.NDArray[np.float32]], Int64Array]
"""Scores to their positions, best first."""


def rank(candidates: pa.Table, scores: npt.NDArray[np.float32], top_k: int | None) -> pa.Table:
    """Order each query's candidates, best first, and keep the best top_k.

    candidates: `query_id` and `passage_id`, a query's rows together; scores: one a row. Returns the
    rows with `rank` (int32, from 1), queries in the order they came in. Equal scores rank by passage id
    (numbers by size, text by code point), so that the order never depends on chance.
    """
    query_numbers = _run_numbers(candidates["query_id"])
    keys = pa.table(
        {
            "query_number": query_numbers,
            "score": pa.array(scores, pa.float32()),
            "passage_id": candidates["passage_id"],
        }
    )
    order = pc.sort_indices(
        keys, [("query_number", "ascending"), ("score", "descending"), ("passage_id", "ascending")]
    )
    ranks = pa.array(_places(query_numbers.take(order).to_numpy()), pa.int32())
    return top(candidates.take(order).append_column("rank", ranks), top_k)


def ranks(query_ids: pa.ChunkedArray, passage_ids: pa.ChunkedArray, scores: pa.Array) -> pa.Array:
    """The rank (int32, from 1) that `rank` gives each row, for rows that stay where they are."""
    places = pa.array(np.arange(len(query_ids)))
    rows = pa.table({"query_id": query_ids, "passage_id": passage_ids, "place": places})
    ranked = rank(rows, scores.to_numpy(), None)
    return ranked["rank"].combine_chunks().take(pc.sort_indices(ranked["place"]))


def in_rank_order(query_ids: pa.ChunkedArray, ranks: pa.Array) -> pa.Array:
    """The positions of the rows, each query's by their ranks, queries in the order they came in."""
    keys = pa.table({"query_number": _run_numbers(query_ids), "rank": ranks})
    return pc.sort_indices(keys, [("query_number", "ascending"), ("rank", "ascending")])


def top(ranked: pa.Table, top_k: int | None) -> pa.Table:
    """The best top_k of each query; all where it is None."""
    return ranked if top_k is None else ranked.filter(pc.less_equal(ranked["rank"], top_k))


def original_ranks(query_ids: pa.ChunkedArray) -> Int64Array:
    """1-based place of each row within its query, whose rows stand together."""
    return _places(query_numbers(query_ids))


def query_numbers(query_ids: pa.ChunkedArray) -> Int64Array:
    """0 for the rows of the first query, 1 for those of the second, ..."""
    return np.asarray(_run_numbers(query_ids).to_numpy(), np.int64)


def trec_eval_order(passage_ids: Sequence[str], scores: Sequence[float]) -> Int64Array:
    """The positions of the candidates of one query or several, as trec_eval orders them.

    By score, as the float32 that trec_eval holds, then by passage id (by code point), both
    descending.
    """
    with np.errstate(over="ignore"):
        single = np.asarray(scores, np.float64).astype(np.float32)
    keys = pa.table({"passage_id": pa.array(passage_ids, pa.string()), "score": pa.array(single)})
    order = pc.sort_indices(keys, [("score", "descending"), ("passage_id", "descending")])
    return np.asarray(order.to_numpy(), np.int64)


def first_stage_order(
    query_ids: pa.ChunkedArray, passage_ids: pa.ChunkedArray, scores: pa.ChunkedArray
) -> pa.Array:
    """The positions of the rows, each query's (which stand together) as `trec_eval_order` has them."""
    keys = pa.table(
        {
            "query_number": _run_numbers(query_ids),
            "score": pc.cast(scores, pa.float32()),
            "passage_id": passage_ids,
        }
    )
    return pc.sort_indices(
        keys, [("query_number", "ascending"), ("score", "descending"), ("passage_id", "descending")]
    )


def input_order(scores: npt.NDArray[np.floating[Any]]) -> Int64Array:
    """The positions of the scores, best first; equal ones as they came."""
    return np.argsort(-scores, kind="stable")


def reversed_input_order(scores: npt.NDArray[np.floating[Any]]) -> Int64Array:
    """The positions of the scores, best first; equal ones from the last to the first."""
    return np.argsort(scores, kind="stable")[::-1]


def _places(query_numbers: Int64Array) -> Int64Array:
    """1-based place of each row among those of its number, which stand together and ascend."""
    return np.arange(len(query_numbers)) - np.searchsorted(query_numbers, query_numbers) + 1


def _run_numbers(query_ids: pa.ChunkedArray) -> pa.Array:
    """0 for the rows of the first query, 1 for those of the second, ..."""
    ids = query_ids.combine_chunks()
    begins = np.zeros(len(ids), np.int64)
    if len(ids):
        begins[1:] = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    return pa.array(np.cumsum(begins))
