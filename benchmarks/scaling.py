"""How far does a job grow in a straight line, and what stops it?

Run it from the repository root:

    PYTHONPATH=. python benchmarks/scaling.py [--actors 1 2 4 8 16] [--seconds 4] [--shards 20] [--output URL]

The whole job runs, on a local cluster of several nodes that claim a GPU for each actor; the model alone is a
stand-in (stand_in.py) that waits --seconds a shard, as a process waits for its GPU. There are --shards shards
of --pairs pairs for each actor. Looked at is the steady state: from when every actor has scored --warm-up
shards (processes that start, which a real job does once in hours, take these few cores from the others) to
when the first actor finds nothing more to do. Told are the pairs/s of the shards that ended there, and the
share of the time in which its actors scored: linear is actors that always do.

The limit: --limit actors that do not wait score --limit-shards shards of a query each. Nothing but what a
shard costs besides its pairs is left, on this machine's cores, shared by the driver, Ray, all workers and
the store.
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
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.cluster_utils import Cluster

from benchmarks.stand_in import install
from pipeline.reranking import flow
from pipeline.reranking.config import RerankConfig

ROOT = Path(__file__).parents[1]
MODEL = str(ROOT / "tests/data/tiny-bge-reranker")
ACTORS_A_NODE = 4
CANDIDATES = 100


class Measured(NamedTuple):
    """Of the steady state."""

    device_share: float
    """Mean over the actors: seconds in which they scored over seconds."""
    shards_per_s: float
    """Those that ended."""


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

    def hook() -> None:
        install(seconds, log)

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
        made.shutdown()  # type: ignore[no-untyped-call]  # Ray's own


def run(table: Path, output: str, actors: int, seconds: float, shard_pairs: int, warm_up: int) -> Measured:
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
            flow.run(config)
        files = sorted(Path(log).iterdir())
        spans = [np.array([json.loads(line) for line in file.read_text().splitlines()]) for file in files]
    assert len(spans) == actors
    return steady_state(spans, warm_up)


def steady_state(spans: list[npt.NDArray[np.float64]], warm_up: int) -> Measured:
    """spans: of each actor, the beginning and the end of every shard."""
    first, last = max(span[warm_up - 1, 1] for span in spans), min(span[-1, 1] for span in spans)
    if first >= last:
        raise SystemExit("no steady state: more --shards are needed")
    inside = [np.clip(span, first, last) for span in spans]
    shares = [(span[:, 1] - span[:, 0]).sum() / (last - first) for span in inside]
    ended = sum(((first < span[:, 1]) & (span[:, 1] <= last)).sum() for span in spans)
    return Measured(float(np.mean(shares)), ended / (last - first))


def print_machine() -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    print(f"python {platform.python_version()}, ray {version('ray')}, pyarrow {version('pyarrow')}")
    print(f"{cpu}, {os.cpu_count()} cores; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")


def main() -> None:
    parser = argparse.ArgumentParser(description="Scaling of the job over simulated GPUs")
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=4.0, help="what the stand-in waits a shard")
    parser.add_argument("--shards", type=int, default=20, help="shards an actor")
    parser.add_argument("--warm-up", type=int, default=8, help="shards of each actor that do not count")
    parser.add_argument("--pairs", type=int, default=2000, help="pairs a shard")
    parser.add_argument("--limit", type=int, default=4, help="actors that run without a wait")
    parser.add_argument("--limit-shards", type=int, default=1500)
    parser.add_argument("--output", help="where runs go: a directory or URL; default: a temporary directory")
    options = parser.parse_args()
    print_machine()
    print(f"{options.shards} shards of {options.pairs} pairs an actor, {options.seconds:g} s each")
    with tempfile.TemporaryDirectory() as directory:
        output = f"{options.output or directory}/{time.time():.0f}"
        print(f"\n{'actors':>6}{'pairs/s':>12}{'of linear':>11}", flush=True)
        for actors in options.actors:
            table = Path(directory) / f"{actors}.parquet"
            write_table(table, actors * options.shards * options.pairs)
            found = run(table, f"{output}/{actors}", actors, options.seconds, options.pairs, options.warm_up)
            speed = found.shards_per_s * options.pairs
            print(f"{actors:6}{speed:12.0f}{found.device_share:11.1%}", flush=True)
        table = Path(directory) / "limit.parquet"
        write_table(table, options.limit_shards * CANDIDATES)
        found = run(table, f"{output}/limit", options.limit, 0, CANDIDATES, options.warm_up)
    print(f"\nwithout a wait, {options.limit} actors: {found.shards_per_s:.1f} shards/s")


if __name__ == "__main__":
    main()
