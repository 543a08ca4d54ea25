"""Lists of several sources to one."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline.fusion import reciprocal_ranks
from pipeline.retrieval.fusion import FusionConfig, fuse


def hits(*rows: tuple[int, str, float]) -> pa.Table:
    """(query, passage, score), a query's in the order of ranks."""
    seen: dict[int, int] = {}
    ranks = []
    for query, _, _ in rows:
        seen[query] = seen.get(query, 0) + 1
        ranks.append(seen[query])
    columns: dict[str, Any] = {
        "query": pa.array([query for query, _, _ in rows], pa.int32()),
        "shard": pa.array([0] * len(rows), pa.int64()),
        "row": pa.array([ord(passage) for _, passage, _ in rows], pa.int32()),
        "passage_id": pa.array([passage for _, passage, _ in rows], pa.string()),
        "score": pa.array([score for _, _, score in rows], pa.float32()),
        "rank": pa.array(ranks, pa.int32()),
    }
    return pa.table(columns)


WORDS = hits((0, "a", 9.0), (0, "b", 4.0), (0, "c", 1.0), (1, "a", 2.0))
VECTORS = hits((0, "b", 0.9), (0, "d", 0.5))


def fused(**config: Any) -> dict[tuple[int, str], dict[str, Any]]:
    table = fuse({"words": WORDS, "vectors": VECTORS}, FusionConfig.model_validate(config))
    return {(row["query"], row["passage_id"]): row for row in table.to_pylist()}


def test_reciprocal_ranks_take_any_k_that_tells_ranks_apart() -> None:
    ranks = np.array([1, 2], np.int32)
    assert reciprocal_ranks(ranks, 2**31 - 1).tolist() == [1 / 2**31, 1 / (2**31 + 1)]
    with pytest.raises(ValidationError, match="less than or equal to 1000000"):
        FusionConfig(k=1_000_001)


def test_reciprocal_ranks() -> None:
    rows = fused()
    assert {key: row["score"] for key, row in rows.items()} == pytest.approx(
        {(0, "a"): 1 / 61, (0, "b"): 1 / 62 + 1 / 61, (0, "c"): 1 / 63, (0, "d"): 1 / 62, (1, "a"): 1 / 61}
    )
    ranks = ("words_rank", "words_score", "vectors_rank", "vectors_score")
    assert [rows[0, "b"][name] for name in ranks] == [2, 4.0, 1, pytest.approx(0.9)]
    assert [rows[0, "d"][name] for name in ranks] == [None, None, 2, 0.5]
    assert fused(k=1, weights={"vectors": 2.0})[0, "b"]["score"] == pytest.approx(1 / 3 + 2 / 2)


def test_weighted_scores_between_0_and_1() -> None:
    scores = {key: row["score"] for key, row in fused(method="weighted", weights={"words": 0.5}).items()}
    # A list of one score: it is its first.
    expected = {(0, "a"): 0.5, (0, "b"): 0.5 * 3 / 8 + 1, (0, "c"): 0.0, (0, "d"): 0.0, (1, "a"): 0.5}
    assert scores == pytest.approx(expected)


def test_a_source_that_found_nothing() -> None:
    for method in ("rrf", "weighted"):
        config = FusionConfig.model_validate({"method": method})
        assert fuse({"words": hits(), "vectors": VECTORS}, config)["passage_id"].to_pylist() == ["b", "d"]
