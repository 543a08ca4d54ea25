"""The endpoint gives what the job writes."""

from pathlib import Path

import httpx2
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.reranking import flow
from pipeline.reranking.config import load_config
from tests.conftest import TINY
from tests.serve.local import serving

EXAMPLES = Path("examples/candidates")
MORE = ("output.top_k=null", "executor=here")


@pytest.mark.parametrize(("max_batch_tokens", "tolerance"), [(1, 0.0), (None, 1e-5)])
def test_the_sample_table_scores_alike_online(
    tmp_path: Path, max_batch_tokens: int | None, tolerance: float
) -> None:
    """Bit for bit where every pair goes through the model alone, which is batch-invariant."""
    table = pq.read_table(EXAMPLES).to_pylist()
    scorer = {"model": TINY, "device": "cpu", "max_batch_tokens": max_batch_tokens}
    settings = [f"scorer.{name}={'null' if value is None else value}" for name, value in scorer.items()]
    output = f"output.path={tmp_path}/run"
    flow.run(load_config(Path("configs/rerank/demo.yaml"), [*settings, output, *MORE]))
    offline = {
        (row["query_id"], row["passage_id"]): row["score"]
        for row in pq.read_table(tmp_path / "run/run").to_pylist()
    }
    queries: dict[str, list[dict[str, str]]] = {}
    for row in table:
        queries.setdefault(row["query_id"], []).append(row)
    differences = []
    with serving({"tiny": scorer}) as server, httpx2.Client(base_url=server.url, timeout=60) as client:
        for query_id, rows in queries.items():
            body = {"query": rows[0]["query"], "passages": [row["passage"] for row in rows]}
            answer = client.post("/rank", json=body).json()
            for entry in answer["ranked"]:
                expected = np.float32(offline[query_id, rows[entry["index"]]["passage_id"]])
                differences.append(abs(np.float32(entry["score"]) - expected))
    assert len(differences) == len(table) == len(offline)
    assert max(differences) <= tolerance
