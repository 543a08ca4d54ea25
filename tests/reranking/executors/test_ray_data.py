"""The job on a real Ray of this machine."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from pipeline import status
from pipeline.errors import ConfigError, InputError, ModelError, TemporaryError
from pipeline.reranking import dry_run, flow
from pipeline.reranking.config import RerankConfig
from pipeline.scoring.dtype import fastest_dtype
from pipeline.tables.output.directory import Directory
from tests.conftest import DATA, TINY
from tests.reranking.jobs import config, data_of

MINICPM = str(DATA / "tiny-bge-reranker-v2-minicpm-layerwise")

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("on_head")]


def on_ray(table: Path, out: str, **sections: Any) -> RerankConfig:
    return config(table, out, executor="ray_data", **sections)


def test_it_writes_the_bytes_of_a_job_in_this_process(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of paths that are relative, to processes that were started elsewhere."""
    monkeypatch.chdir(table.parent)
    shutil.copytree(TINY, "model")
    rows = pq.read_table(table / "part-1.parquet").to_pylist()
    rows[1]["passage"], rows[2]["passage_id"] = None, rows[3]["passage_id"]
    pq.write_table(pa.Table.from_pylist(rows), table / "part-1.parquet")
    options: dict[str, Any] = {"input": {"path": "in/"}, "scorer": {"model": "model", "dtype": "auto"}}
    kept = {"keep_columns": {"number": "n"}, "top_k": 3, "trec_run": True}
    summary = flow.run(
        on_ray(table, "ray", **options, output=kept | {"path": "ray"}, actors={"min": 1, "max": 2})
    )
    alone = flow.run(config(table, "here", **options, output=kept | {"path": "here"}))
    assert (summary.pairs, summary.kept, summary.rejected) == (alone.pairs, alone.kept, alone.rejected)
    assert data_of(table.parent / "ray") == data_of(table.parent / "here")
    assert summary.dtype == alone.dtype == fastest_dtype("cpu")  # an actor was asked
    # A start in either place goes on with what the other has done.
    for name in ("_SUCCESS", "summary.json", "_manifest/done/shard-000001.json"):
        (table.parent / "ray" / name).unlink()
    again = flow.run(config(table, "ray", **options, output=kept | {"path": "ray"}))
    assert (again.shards_done_before, again.pairs) == (3, summary.pairs)
    assert data_of(table.parent / "ray") == data_of(table.parent / "here")


def test_scores_of_a_previous_run_reach_the_actors(table: Path) -> None:
    flow.run(config(table, "previous"))
    reuse = str(table.parent / "previous")
    summary = flow.run(on_ray(table, "out", reuse=reuse))
    assert (summary.reused, summary.tokens) == (32, 0)
    assert data_of(table.parent / "out") == data_of(table.parent / "previous")


def test_a_cascade_writes_the_bytes_of_one_in_this_process(table: Path) -> None:
    """Two pools; the shards go from one to the other without a table between them."""
    part = {"min": 1, "max": 1, "num_cpus": 0.5}
    levels: list[dict[str, Any]] = [
        {"scorer": {"model": TINY, "device": "cpu"}, "keep": 3, "actors": part},
        {"scorer": {"model": MINICPM, "cutoff_layers": [2, 4]}, "keep": 2},
    ]
    levels[1]["fuse"] = {"k": 3, "first_stage": 0.5}
    output = {"trec_run": True, "keep_columns": {"first_stage_score": "n"}}
    summary = flow.run(on_ray(table, "ray", levels=levels, output=output))
    alone = flow.run(config(table, "here", levels=levels, output=output))
    assert [level.pairs for level in summary.levels] == [level.pairs for level in alone.levels] == [32, 24]
    assert data_of(table.parent / "ray") == data_of(table.parent / "here")


def test_what_goes_wrong_in_an_actor_arrives_as_itself(table: Path) -> None:
    with pytest.raises(InputError) as caught:
        flow.run(on_ray(table, "pair", scorer={"query_max_length": 512}))
    assert str(caught.value).startswith(f"{table}/part-1.parquet row 16: query 7, passage 'p31': ")
    model = table.parent / "model"
    shutil.copytree(TINY, model)
    tensors = load_file(model / "model.safetensors")
    tensors["classifier.out_proj.bias"] *= np.nan
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="model: its scores are nan"):
        flow.run(on_ray(table, "weights", scorer={"model": str(model)}))


def test_actors_that_have_no_room_are_refused(table: Path) -> None:
    with pytest.raises(ConfigError, match=r"64 actors of 1 CPU and 0 GPUs can't be held by .* has 2 CPUs"):
        flow.run(on_ray(table, "out", actors={"min": 64, "max": 64}))
    one = {"scorer": {"model": TINY, "device": "cpu"}, "keep": 3}
    levels = [one | {"actors": {"min": 2, "max": 2}}, one | {"keep": 2}]
    with pytest.raises(ConfigError, match=r"all levels together, 2 actors of 1 CPU and 0 GPUs \+ 1 actor"):
        flow.run(on_ray(table, "out", levels=levels))
    with pytest.raises(ConfigError, match="1 GPU, beside a CPU for encoding, can't be held"):
        flow.run(on_ray(table, "out", actors={"num_gpus": 1.0}, scorer={"device": "auto"}))
    told = status.read(Directory(str(table.parent / "out")), datetime.now(UTC))
    assert (told.state, told.shards_done) == ("failed", 0)
    assert "1 GPU, beside a CPU for encoding, can't be held" in told.message


def test_a_cluster_that_may_grow_is_waited_for_and_then_refused(
    table: Path, on_head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", on_head)
    settings = on_ray(table, "out", actors={"num_gpus": 1.0, "wait_s": 1.0}, scorer={"device": "auto"})
    with pytest.raises(TemporaryError, match=r"2 CPUs and 0 GPUs on 1 node\. .* had 1 s to grow"):
        flow.run(settings)
    assert "cluster  actors: 1 actor of 1 CPU and 1 GPU, beside" in dry_run.describe(settings)
