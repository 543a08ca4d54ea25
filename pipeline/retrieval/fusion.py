"""Pure: the lists that several sources found for a query become one."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from pipeline.fusion import FloatArray, Method, RrfK, Weight, reciprocal_ranks, spread_scores


class FusionConfig(BaseModel):
    """How lists become one."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    method: Method = "rrf"
    """rrf: reciprocal ranks, the sum over the sources of weight / (k + rank). weighted: scores, each source's
    put between 0 (its last one of the query) and 1 (its first), the sum of weight * score. A passage that a
    source did not find gets nothing from it."""
    k: RrfK = 60
    """rrf: how little the first ranks stand out."""
    weights: dict[str, Weight] = Field(default={})
    """By the sources' names. Where nothing is said: 1."""


def fuse(lists: Mapping[str, pa.Table], config: FusionConfig) -> pa.Table:
    """Every passage that some source found for a query, with its fused score, in no order.

    lists: by source, `query` (a number), the passage's place `shard` and `row`, `passage_id`, `score`, and
    `rank` within the query. Gives the same columns but rank and score, `score` (float32) of the fusion, and
    NAME_rank and NAME_score, null where the source did not find it.
    """
    keys = ["query", "shard", "row"]
    fused: pa.Table | None = None
    for name, found in lists.items():
        part = np.asarray(_parts(found, config), np.float64) * config.weights.get(name, 1.0)
        columns = {
            **{key: found[key] for key in keys},
            f"{name}_id": found["passage_id"],
            f"{name}_rank": found["rank"],
            f"{name}_score": found["score"],
            f"{name}_part": pa.array(part),
        }
        table = pa.table(columns)
        fused = table if fused is None else fused.join(table, keys, join_type="full outer", use_threads=False)
    assert fused is not None
    return _summed(fused, list(lists))


def _parts(found: pa.Table, config: FusionConfig) -> FloatArray:
    """What each row adds to its passage's score, before weights."""
    if config.method == "rrf":
        return reciprocal_ranks(found["rank"].to_numpy(), config.k)
    return spread_scores(found["query"].to_numpy(), found["score"].to_numpy())


def _summed(fused: pa.Table, names: list[str]) -> pa.Table:
    total = np.zeros(fused.num_rows)
    ids = pa.chunked_array([pa.nulls(fused.num_rows, fused[f"{names[0]}_id"].type)])
    for name in names:
        total += fused[f"{name}_part"].fill_null(0.0).to_numpy()
        ids = pa.compute.coalesce(ids, fused[f"{name}_id"])
    columns = {key: fused[key] for key in ("query", "shard", "row")}
    columns |= {"passage_id": ids, "score": pa.array(total.astype(np.float32))}
    columns |= {
        f"{name}_{column}": fused[f"{name}_{column}"] for name in names for column in ("rank", "score")
    }
    return pa.table(columns)
