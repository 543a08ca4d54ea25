"""Which processes a job puts on which machines, on a Ray cluster of several nodes."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from pipeline.capacity import wait_for_one
from pipeline.cluster import fastest_dtypes
from pipeline.errors import ConfigError
from pipeline.placement import ActorsConfig
from pipeline.reranking import flow
from pipeline.reranking.config import RerankConfig
from pipeline.scoring import ScorerConfig
from pipeline.scoring.dtype import fastest_dtype
from tests.after_import import after_import
from tests.conftest import TINY
from tests.ports import free_port
from tests.reranking.test_survival import write_table

pytestmark = pytest.mark.ray


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Machines with CPUs alone, with a GPU of one model, and with two of another."""
    # The dashboard's port is looked at all the same.
    head = {"num_cpus": 0, "include_dashboard": False, "dashboard_port": free_port()}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.add_node(num_cpus=2, labels={"gpu": "none"})
    made.add_node(num_cpus=0, num_gpus=1, labels={"gpu": "small"})
    made.add_node(num_cpus=0, num_gpus=2, labels={"gpu": "large"})
    (tmp_path / "seen").mkdir()

    folder = str(tmp_path / "seen")

    def stand_in_that_leaves_files() -> None:
        """Work leaves a file that tells where it was done."""
        from benchmarks.stand_in import install  # noqa: PLC0415  (it brings torch)
        from pipeline.reranking import worker  # noqa: PLC0415

        def seen(stage: str, work: Any) -> Any:
            def run(*arguments: Any) -> Any:
                context = ray.get_runtime_context()
                Path(folder, f"{stage} {context.get_node_id()} {context.get_worker_id()}").touch()
                deadline = time.monotonic() + 300
                # The first actor is busy until there is a second one, however long that takes to start.
                while stage == "score" and len([*Path(folder).glob("score *")]) < 2:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
                return work(*arguments)

            return run

        install(seconds_a_shard=0.1)
        for name in ("encode", "score"):
            setattr(worker, name, seen(name, getattr(worker, name)))

    def hook() -> None:
        after_import("pipeline.reranking.worker", stand_in_that_leaves_files)

    ray.init(
        address=made.address,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        runtime_env={"worker_process_setup_hook": hook},
    )
    yield made
    ray.shutdown()
    made.shutdown()  # type: ignore[no-untyped-call]  # Ray's own


def test_pools_grow_on_the_nodes_that_are_chosen_and_others_encode(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_table(f"{tmp_path}/in", queries=60)
    settings = {
        "input": {"path": f"{tmp_path}/in"},
        "output": {"path": f"{tmp_path}/out"},
        "scorer": {"model": TINY},
        "actors": {
            "min": 1,
            "max": 4,
            "num_cpus": 0,
            "num_gpus": 0.5,
            "label_selector": {"gpu": "!in(none, small)"},
        },
        "shard_pairs": 8,
    }
    summary = flow.run(RerankConfig.model_validate(settings))
    assert summary.pairs == 480
    labels = {node["NodeID"]: node["Labels"].get("gpu") for node in ray.nodes()}  # type: ignore[no-untyped-call]
    seen = [file.name.split() for file in (tmp_path / "seen").iterdir()]
    assert {labels[node] for stage, node, _ in seen if stage == "encode"} == {"none"}
    assert {labels[node] for stage, node, _ in seen if stage == "score"} == {"large"}
    assert 1 < len([worker for stage, _, worker in seen if stage == "score"]) <= 4

    huge: dict[str, Any] = {"num_gpus": 1, "label_selector": {"gpu": "huge"}}
    settings["actors"] = huge
    settings["output"] = {"path": f"{tmp_path}/refused"}
    with pytest.raises(ConfigError, match="with the labels 0 CPUs and 0 GPUs on 0 nodes"):
        flow.run(RerankConfig.model_validate(settings))

    # A node that is added late, as an autoscaler does for work that waits.
    actors = ActorsConfig.model_validate(huge | {"num_cpus": 0, "wait_s": 120.0})
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait_for_one, actors)
        cluster.add_node(num_cpus=0, num_gpus=1, labels={"gpu": "huge"})
        waiting.result()

    # What other work holds is waited for, and that is told.
    monkeypatch.setattr("pipeline.cluster._QUIET_S", 0.1)
    holding: Any = ray.remote(num_cpus=0, num_gpus=1, label_selector={"gpu": "huge"})(Holds)
    holds = holding.remote()
    ray.get(holds.answer.remote())
    with ThreadPoolExecutor() as pool, caplog.at_level(logging.WARNING, logger="rayrank"):
        asked = pool.submit(fastest_dtypes, [ScorerConfig(model=TINY, device="cpu")], [actors])
        deadline = time.monotonic() + 60
        while "waiting for room for an actor" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not asked.done()
        ray.kill(holds)
        assert asked.result() == [fastest_dtype("cpu")]


class Holds:
    """Work of others."""

    def answer(self) -> None:
        pass
