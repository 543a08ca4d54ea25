"""Memory stays flat however large the table: a whole job of real parts, its model alone a stand-in."""

import multiprocessing
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.reranking import flow
from pipeline.reranking.config import RerankConfig
from tests.after_import import after_import
from tests.conftest import ROOT, TINY
from tests.own_ray import own_ray

MIB = 2**20
SHARD_PAIRS = 20_000
CANDIDATES = 100
STAGES = ("MapBatches(_encode)", "MapWorker")
"""As Ray titles the processes; what Linux keeps of a title is short."""


def write_table(path: Path, pairs: int) -> None:
    """Files of a million pairs."""
    path.mkdir()
    for start in range(0, pairs, 1_000_000):
        rows = range(start, min(start + 1_000_000, pairs))
        columns = {
            "query_id": [row // CANDIDATES for row in rows],
            "query": [f"query {row // CANDIDATES}" for row in rows],
            "passage_id": list(rows),
            "passage": [f"a passage of a few words, number {row}" for row in rows],
        }
        pq.write_table(pa.table(columns), path / f"{start:09}.parquet", row_group_size=SHARD_PAIRS)


def run_jobs(folder: str, sizes: Sequence[int], answer: Connection) -> None:
    """In a process of its own, one after another: the pairs done, and the most that each kind of process has
    held until then, in MiB."""
    held: dict[str, float] = defaultdict(float)
    ended = Event()
    watcher = Thread(target=watch, args=(held, ended))
    outcomes: list[tuple[int, dict[str, float]]] = []

    def stand_in() -> None:
        from benchmarks.stand_in import install  # noqa: PLC0415  (it brings torch)

        install()

    def hook() -> None:
        after_import("pipeline.reranking.worker", stand_in)

    environment = {"worker_process_setup_hook": hook}
    with own_ray(num_cpus=2, num_gpus=1, object_store_memory=300 * MIB, runtime_env=environment):
        watcher.start()
        try:
            for pairs in sizes:
                summary = flow.run(RerankConfig.model_validate(job(f"{folder}/{pairs}")))
                outcomes.append((summary.pairs, dict(held)))
        finally:
            ended.set()
            watcher.join()
    answer.send(outcomes)


def job(folder: str) -> dict[str, Any]:
    return {
        "input": {"path": f"{folder}/in"},
        "output": {"path": f"{folder}/out", "top_k": 10},
        "scorer": {"model": TINY},
        "actors": {"num_gpus": 1},
        "shard_pairs": SHARD_PAIRS,
    }


def watch(held: dict[str, float], ended: Event) -> None:
    """What the driver and its workers hold of their own (without what they share with the object store)."""
    driver = psutil.Process()
    while not ended.wait(0.1):
        for process in [driver, *driver.children(recursive=True)]:
            try:
                title, memory = process.name(), process.memory_info()
            except psutil.NoSuchProcess:
                continue
            kinds = ["driver"] if process is driver else [kind for kind in STAGES if kind in title]
            for kind in kinds:
                held[kind] = max(held[kind], (memory.rss - memory.shared) / MIB)


def peaks(tmp_path: Path, *sizes: int) -> list[dict[str, float]]:
    for pairs in sizes:
        (tmp_path / str(pairs)).mkdir()
        write_table(tmp_path / f"{pairs}/in", pairs)
    outcomes = jobs_in_a_process(str(tmp_path), sizes)
    assert [done for done, _ in outcomes] == list(sizes)
    return [held for _, held in outcomes]


def jobs_in_a_process(folder: str, sizes: Sequence[int]) -> Any:
    """What `run_jobs`, in a process that has done nothing else, sends."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=run_jobs, args=(folder, sizes, there))
    process.start()
    there.close()
    try:
        return here.recv()
    finally:
        process.join()


@pytest.mark.ray
def test_driver_and_workers_are_flat_in_the_size_of_the_table(tmp_path: Path) -> None:
    # The small one lasts for seconds, so that its workers are seen.
    small, large = peaks(tmp_path, 5 * SHARD_PAIRS, 1_000_000)
    assert large["driver"] < 1024
    for stage in STAGES:
        assert 0 < large[stage] < small[stage] + 100


def test_a_hundred_thousand_files_are_planned_in_400_mb() -> None:
    """By a process without torch, of which some builds alone take more. A million of them take 1.4 GB."""
    command = [sys.executable, "benchmarks/plan.py", "--files", "100000"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    *_, told = done.stdout.splitlines()
    found = re.fullmatch(r"100000 files, 100000000 pairs, 5000 shards: \d+ s, (\d+) MiB", told)
    assert found, told
    assert int(found[1]) < 400
