"""A shuffle that the object store can't hold, on a Ray of this machine with as small a one as Ray allows."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from ray._private.internal_api import memory_summary

from pipeline.preparation import flow
from pipeline.preparation.config import PrepareConfig
from tests.own_ray import own_ray

pytestmark = pytest.mark.ray

CANDIDATES, PASSAGES, QUERIES = 60_000, 20_000, 600


@pytest.fixture
def small_store() -> Iterator[None]:
    with own_ray(num_cpus=2, object_store_memory=80 * 2**20):
        yield


@pytest.mark.usefixtures("small_store")
def test_what_the_object_store_cant_hold_is_spilled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.preparation.plan._PARTITION_BYTES", 16 * 2**20)
    passages = pa.table(
        {"_id": range(PASSAGES), "text": [f"{number} {'word ' * 1000}" for number in range(PASSAGES)]}
    )
    pq.write_table(passages, tmp_path / "passages.parquet", row_group_size=1000)
    rows = np.random.default_rng(0).permutation(CANDIDATES)
    candidates = pa.table(
        {
            "query_id": rows % QUERIES,
            "query": [f"query {row % QUERIES}" for row in rows],
            "passage_id": rows % PASSAGES,
        }
    )
    pq.write_table(candidates, tmp_path / "candidates.parquet", row_group_size=5000)
    summary = flow.run(
        PrepareConfig.model_validate(
            {
                "candidates": {"path": f"{tmp_path}/candidates.parquet"},
                "passages": {"path": f"{tmp_path}/passages.parquet"},
                "output": {"path": f"{tmp_path}/out"},
            }
        )
    )
    assert (summary.candidates, summary.written, summary.queries) == (CANDIDATES, CANDIDATES, QUERIES)
    address = ray.get_runtime_context().gcs_address  # or it would look for any Ray of this machine
    assert "Spilled " in memory_summary(address, stats_only=True)  # type: ignore[no-untyped-call]
    read = pq.read_table(tmp_path / "out/candidates", columns=["query_id", "passage_id"]).to_pandas()
    assert sorted(zip(read["query_id"], read["passage_id"], strict=True)) == sorted(
        zip(rows % QUERIES, rows % PASSAGES, strict=True)
    )
