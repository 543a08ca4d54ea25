"""How far does a job grow in a straight line, and what stops it: the driver, the workers' CPUs or the store?

Run it from the repository root:

    PYTHONPATH=. python benchmarks/scaling.py [--actors 1 2 4 8 16] [--seconds 4] [--shards 10] [--output URL]

The whole job runs, on a local cluster of several nodes that claim one GPU for each actor; the model alone is
a stand-in (stand_in.py) that waits --seconds a shard, as a process waits for its GPU. Each actor gets
--shards shards of --pairs pairs. An actor's span goes from when its first shard begins to be scored to when
its last one is done: loading, which a real job does once in hours, is left out, waiting between shards is
not. A job's speed is the sum of its actors' pairs over their spans; linear is the number of actors times the
speed of actors that never wait. Then --limit actors run without a wait: what is left is all that the job
costs besides scoring, on this machine's cores, and the shards a second it ends with are the limit.
"""

import argparse
import json
import logging
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.cluster_utils import Cluster

from benchmarks.stand_in import install
from pipeline import job
from pipeline.config import RerankConfig

ROOT = Path(__file__).parents[1]
MODEL = str(ROOT / "tests/data/tiny-bge-reranker")
ACTORS_A_NODE = 4
CANDIDATES = 100


class Speed(NamedTuple):
    pairs_per_s: float
    """Sum over the actors of their pairs over their spans."""
    shards_per_s: float
    """All shards over the time from the first one's beginning to the last one's end."""
    driver_mib: float


def write_table(path: Path, pairs: int) -> None:
    passage = "a passage of some twenty words, as they stand in a collection of the web, " * 3
    rows = {
        "query_id": [row // CANDIDATES for row in range(pairs)],
        "query": [f"query number {row // CANDIDATES}" for row in range(pairs)],
        "passage_id": list(range(pairs)),
        "passage": [f"{passage}{row}" for row in range(pairs)],
    }
    pq.write_table(pa.table(rows), path, row_group_size=10_000)


@contextmanager
def cluster(actors: int, seconds: float, log: str) -> Iterator[None]:
    """A head that holds no actors, and nodes that hold ACTORS_A_NODE of them."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 200 * 2**20})
    for first in range(0, actors, ACTORS_A_NODE):
        held = min(ACTORS_A_NODE, actors - first)
        # A CPU for the actor and one for the task that encodes for it.
        made.add_node(num_cpus=2 * held, num_gpus=held, object_store_memory=200 * 2**20)
    hook = partial(install, seconds_a_shard=seconds, log=log)
    ray.init(
        address=made.address,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        runtime_env={"worker_process_setup_hook": hook},
    )
    try:
        yield
    finally:
        ray.shutdown()
        made.shutdown()  # type: ignore[no-untyped-call]


def run(table: Path, output: str, actors: int, seconds: float, shard_pairs: int) -> Speed:
    with tempfile.TemporaryDirectory() as log:
        config = RerankConfig.model_validate(
            {
                "input": {"path": str(table)},
                "output": {"path": output},
                "scorer": {"model": MODEL},
                "actors": {"min": actors, "max": actors, "num_gpus": 1},
                "shard_pairs": shard_pairs,
            }
        )
        with cluster(actors, seconds, log):
            summary = job.run(config)
        files = sorted(Path(log).iterdir())
        spans = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    speed = sum(len(span) * shard_pairs / (span[-1][1] - span[0][0]) for span in spans)
    begin, end = min(span[0][0] for span in spans), max(span[-1][1] for span in spans)
    return Speed(speed, summary.shards / (end - begin), _peak_mib())


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def print_machine() -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    print(f"python {platform.python_version()}, ray {version('ray')}, pyarrow {version('pyarrow')}")
    print(f"{cpu}, {os.cpu_count()} cores; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")


def main() -> None:
    parser = argparse.ArgumentParser(description="Scaling of the job over simulated GPUs")
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=4.0, help="what the stand-in waits a shard")
    parser.add_argument("--shards", type=int, default=10, help="shards an actor")
    parser.add_argument("--pairs", type=int, default=1000, help="pairs a shard")
    parser.add_argument("--limit", type=int, default=16, help="actors that run without a wait")
    parser.add_argument("--output", help="where runs go: a directory or URL; default: a temporary directory")
    options = parser.parse_args()
    print_machine()
    print(f"shards of {options.pairs} pairs, {options.shards} an actor, {options.seconds:g} s each")
    with tempfile.TemporaryDirectory() as directory:
        output = f"{options.output or directory}/{time.time():.0f}"
        print(f"\n{'actors':>6}{'pairs/s':>12}{'of linear':>11}{'driver MiB':>12}")
        for actors in options.actors:
            table = Path(directory) / f"{actors}.parquet"
            write_table(table, actors * options.shards * options.pairs)
            speed = run(table, f"{output}/{actors}", actors, options.seconds, options.pairs)
            linear = actors * options.pairs / options.seconds
            share = speed.pairs_per_s / linear
            print(f"{actors:6}{speed.pairs_per_s:12.0f}{share:11.1%}{speed.driver_mib:12.0f}", flush=True)
        table = Path(directory) / "limit.parquet"
        write_table(table, options.limit * options.shards * options.pairs)
        speed = run(table, f"{output}/limit", options.limit, 0, options.pairs)
    print(f"\nwithout a wait, {options.limit} actors: {speed.shards_per_s:.1f} shards/s")


if __name__ == "__main__":
    main()
