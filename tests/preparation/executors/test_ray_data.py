"""The preparation on a real Ray of this machine."""

from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from pipeline.capacity import Node
from pipeline.errors import InputError, TemporaryError
from pipeline.preparation import flow
from pipeline.preparation.config import PrepareConfig
from pipeline.tables.candidates import plan_table
from pipeline.tables.config import InputConfig
from tests.own_ray import joined
from tests.preparation.tables import bytes_of, planned, trec
from tests.s3 import Server

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("on_head")]


def on_ray(folder: Path, **sections: Any) -> PrepareConfig:
    return trec(folder, executor="ray_data", **sections)


def test_it_writes_the_bytes_of_a_preparation_in_this_process(folder: Path) -> None:
    summary = flow.run(on_ray(folder))
    alone = flow.run(trec(folder, output={"path": str(folder / "here")}))
    changes = {"output": summary.output, "wall_s": summary.wall_s}
    assert summary == alone.model_copy(update=changes)
    assert bytes_of(folder / "out") == bytes_of(folder / "here")


def test_same_input_same_bytes_in_several_partitions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.preparation.plan._PARTITION_BYTES", 300)  # several partitions
    first = flow.run(on_ray(folder))
    assert first.files > 1
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*")}
    assert flow.run(on_ray(folder)).model_dump() == first.model_dump()
    assert {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*")} == before
    assert planned(folder) == (3, 9)
    written = bytes_of(folder / "out")
    (folder / "out/_SUCCESS").unlink()  # as if killed
    for part in sorted((folder / "out/candidates").iterdir())[1:]:
        part.unlink()
    (folder / "out/candidates/part-stale.parquet").write_bytes(b"x")
    flow.run(on_ray(folder))
    assert bytes_of(folder / "out") == written


def test_a_cluster_without_a_cpu_may_grow_and_is_refused_in_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.capacity.nodes", lambda: [Node(0, 8, {}), Node(0.5, 0, {})])
    monkeypatch.setattr("pipeline.preparation.executors.ray_data._GROW_S", 0.5)
    with pytest.raises(
        TemporaryError, match=r"takes a CPU, and the cluster has 0.5 CPUs and 8 GPUs on 2 nodes"
    ):
        flow.run(on_ray(folder))


def test_what_goes_wrong_in_a_task_arrives_as_itself(folder: Path) -> None:
    table = pa.table({"_id": [f"p{number}" for number in range(1000)], "text": ["x" * 50] * 1000})
    pq.write_table(table, folder / "corpus.parquet", compression="zstd")
    data = bytearray((folder / "corpus.parquet").read_bytes())
    data[100:400] = bytes(300)
    (folder / "corpus.parquet").write_bytes(data)
    with pytest.raises(InputError, match=r"corpus.parquet: not a readable Parquet file"):
        flow.run(on_ray(folder, passages={"path": str(folder / "corpus.parquet")}))


def test_in_an_object_store(folder: Path, bucket: str, s3_server: Server, head: dict[str, str]) -> None:
    remote = fsspec.filesystem("s3")
    for name in ("queries.jsonl", "corpus.jsonl", "run.trec"):
        remote.put_file(str(folder / name), f"{bucket}/in/{name}")
    settings = PrepareConfig.model_validate(
        {
            "candidates": {"path": f"{bucket}/in/run.trec", "format": "trec"},
            "queries": {"path": f"{bucket}/in/queries.jsonl", "format": "jsonl"},
            "passages": {"path": f"{bucket}/in/corpus.jsonl", "format": "jsonl"},
            "output": {"path": f"{bucket}/out"},
            "executor": "ray_data",
        }
    )
    # The cluster was started before the bucket: its workers must be told where it is.
    ray.shutdown()
    with joined(head, runtime_env={"env_vars": s3_server.environment}):
        summary = flow.run(settings)
        assert summary.written == 9
        assert flow.run(settings).model_dump() == summary.model_dump()
    plan = plan_table(InputConfig(path=f"{bucket}/out/candidates"), {}, 100)
    assert plan.shards[0].pairs == 9
