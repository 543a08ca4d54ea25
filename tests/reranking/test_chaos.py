"""Processes, machines and drivers killed at random moments, on a Ray cluster of several nodes."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from pipeline.reranking import flow
from pipeline.reranking.config import RerankConfig
from pipeline.tables.output.directory import Directory
from tests.conftest import TINY
from tests.own_ray import environment, folder_of_its_own
from tests.ports import free_port
from tests.reranking.test_survival import begin, config, data_of, write_table

pytestmark = pytest.mark.ray

LEVELS = [
    {"scorer": {"model": TINY, "device": "cpu", "passage_max_length": 4}, "keep": 2},
    {"scorer": {"model": TINY, "device": "cpu"}, "keep": 1},
]
QUERIES = 100
"""A shard each."""
KILLS = int(os.environ.get("CHAOS_KILLS", "3"))
SEED = int(os.environ.get("CHAOS_SEED", str(random.randrange(10**6))))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head for the driver, two machines for the work."""
    with folder_of_its_own() as folder:
        for name, value in environment(folder).items():
            monkeypatch.setenv(name, value)
        # The dashboard's port is looked at all the same.
        head = {"num_cpus": 0, "include_dashboard": False, "dashboard_port": free_port()}
        made = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            made.add_node(num_cpus=2)
        monkeypatch.setenv("RAY_ADDRESS", made.address)
        yield made
        made.shutdown()  # type: ignore[no-untyped-call]  # Ray's own


def kill_a_worker(luck: random.Random) -> str:
    """Actors and tasks of this test's Ray: descendants of this process."""
    children = psutil.Process().children(recursive=True)
    workers = [child for child in children if child.is_running() and child.name().startswith("ray::")]
    # With its agent a machine's raylet ends: that is the death of a machine, and of the driver's own here.
    workers = [worker for worker in workers if not worker.name().endswith("Agent")]
    busy = [worker for worker in workers if "IDLE" not in worker.name()] or workers
    if not busy:
        return "no worker"
    victim = luck.choice(sorted(busy, key=lambda child: child.pid))
    name = str(victim.name())
    victim.kill()
    return name


def kill_a_machine(cluster: Cluster, luck: random.Random) -> str:
    """All its processes at once; another one joins."""
    cluster.remove_node(luck.choice(sorted(cluster.worker_nodes, key=lambda node: node.node_id)), False)
    cluster.add_node(num_cpus=2)
    return "a machine"


def markers(output: Directory) -> dict[str, bytes | None]:
    return {name: output.read(f"_manifest/done/{name}") for name in output.names("_manifest/done")}


def test_killed_at_random_moments_a_cascade_ends_with_the_bytes_of_an_undisturbed_run(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    luck = random.Random(SEED)
    place = f"{tmp_path}/storm"
    write_table(f"{place}/in", queries=QUERIES)
    output = Directory(f"{place}/out")
    story = [f"seed {SEED}"]
    done: dict[str, bytes | None] = {}
    driver = begin(tmp_path, place, levels=LEVELS)
    for _ in range(KILLS):
        kind = luck.choice(["worker", "worker", "machine", "driver"])
        goal = len(output.names("_manifest/done")) + luck.choice([0, 1, QUERIES // 8, QUERIES // 3])
        while driver.poll() is None and len(output.names("_manifest/done")) < goal:
            time.sleep(0.05)
        time.sleep(luck.uniform(0.0, 1.0 if goal else 8.0))
        if driver.poll() is not None:
            break
        if kind == "worker":
            story.append(f"{kill_a_worker(luck)} after {len(output.names('_manifest/done'))} shards")
        elif kind == "machine":
            story.append(
                f"{kill_a_machine(cluster, luck)} after {len(output.names('_manifest/done'))} shards"
            )
        else:
            os.killpg(driver.pid, signal.SIGKILL)
            driver.communicate()
            time.sleep(1)  # Ray ends the driver's workers; a shard in one of them may still be written
            story.append(f"driver after {len(output.names('_manifest/done'))} shards")
            done |= {name: marker for name, marker in markers(output).items() if name not in done}
            driver = begin(tmp_path, place, levels=LEVELS)
    _, errors = driver.communicate(timeout=240)
    assert driver.returncode == 0, f"{story}\n{errors}"
    after = markers(output)
    assert {name: after[name] for name in done} == done, f"{story}: a finished shard was scored again"
    local = tmp_path / "local"
    write_table(f"{local}/in", queries=QUERIES)
    flow.run(RerankConfig.model_validate(config(str(local), levels=LEVELS, executor="here")))
    assert data_of(f"{place}/out") == data_of(f"{local}/out"), story
