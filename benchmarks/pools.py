"""The queries and passages of a collection that benchmarks/finetune.py trains and judges on, and their files.

A collection is a folder: docs.jsonl (_id, title, text), queries.jsonl (_id, text), qrels.txt, and a TREC run,
run.candidates.txt (the pool that was judged) or else run.bm25.txt.
"""

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.collection import rows_of
from pipeline.evaluation.qrels import read_qrels
from pipeline.fusion import spread_scores

SEED = 20
SCALE = 10
"""Of the run's scores, where they teach."""
LEVELS = 20
"""The highest number that stands for a score of the run, where it is read."""

Pools = dict[str, list[str]]
"""Query id to the passage ids of the run, in its order."""


def split(collection: Path, most: int = 100) -> tuple[Pools, Pools, dict[str, set[str]]]:
    """(four fifths of the queries, the other fifth, the relevant passages of each query).

    most: passages of a query.
    """
    relevant: dict[str, set[str]] = defaultdict(set)
    for qrel in read_qrels(str(collection / "qrels.txt")):
        if qrel.relevance > 0:
            relevant[qrel.query_id].add(qrel.doc_id)
    pools: Pools = defaultdict(list)
    for query, passage, _ in run_of(collection):
        if len(pools[query]) < most:
            pools[query].append(passage)
    usable = sorted(query for query, pool in pools.items() if 0 < len(relevant[query] & {*pool}) < len(pool))
    random.Random(SEED).shuffle(usable)
    cut = len(usable) * 4 // 5
    train, held_out = ({query: pools[query] for query in some} for some in (usable[:cut], usable[cut:]))
    return train, held_out, relevant


def run_of(collection: Path) -> Iterator[tuple[str, str, float]]:
    """(query id, passage id, score), in the run's order."""
    runs = [collection / "run.candidates.txt", collection / "run.bm25.txt"]
    for line in next(run for run in runs if run.exists()).read_text().splitlines():
        query, _, passage, _, score, _ = line.split()
        yield query, passage, float(score)


def with_numbers(passages: Sequence[str], scores: npt.NDArray[np.floating]) -> list[str]:
    """One query's passages, each after a number for its score: 0 is their lowest, `LEVELS` their highest."""
    spread = spread_scores(np.zeros(len(scores), np.int64), scores) * LEVELS
    return [f"{level:.0f} {passage}" for level, passage in zip(spread, passages, strict=True)]


def read_pools(
    collection: Path, pools: Pools, *, read_scores: bool
) -> Iterator[tuple[str, str, list[tuple[str, str, float]]]]:
    """(query id, text, (passage id, the text that a reranker reads, the run's score) of its pool)."""
    passages = {row["_id"]: text_of(row) for row in rows_of(collection / "docs.jsonl")}
    queries = {row["_id"]: row["text"] for row in rows_of(collection / "queries.jsonl")}
    found = {(query, passage): score for query, passage, score in run_of(collection)}
    for query, pool in pools.items():
        scores = [found[query, passage] for passage in pool]
        given = [passages[passage] for passage in pool]
        if read_scores:
            given = with_numbers(given, np.array(scores))
        yield query, queries[query], list(zip(pool, given, scores, strict=True))


def write_rows(
    file: Path,
    pools: Pools,
    relevant: dict[str, set[str]],
    collection: Path,
    *,
    with_scores: bool = False,
    read_scores: bool = False,
) -> None:
    """Append a training row for each query. with_scores: the run's, the query's highest as `SCALE`."""
    with file.open("a", encoding="utf-8") as stream:
        for query, text, pool in read_pools(collection, pools, read_scores=read_scores):
            sides: dict[str, list[Any]] = defaultdict(list)
            best = max(score for _, _, score in pool)
            for passage, given, score in pool:
                side = "pos" if passage in relevant[query] else "neg"
                sides[side].append(given)
                if with_scores:
                    sides[f"{side}_scores"].append(round(score / best * SCALE, 4))
            stream.write(json.dumps({"query": text, **sides}) + "\n")


def text_of(row: dict[str, str]) -> str:
    """As a job joins title and text."""
    return f"{row.get('title') or ''} {row['text']}".strip()


def write_run(file: Path, pools: Pools, collection: Path) -> dict[str, str]:
    """The pools in their order, as the input of a job."""
    lines = (
        f"{query} Q0 {passage} {rank} {1 / rank:.6f} pool\n"
        for query, pool in pools.items()
        for rank, passage in enumerate(pool, start=1)
    )
    file.write_text("".join(lines))
    texts = {"queries": str(collection / "queries.jsonl"), "passages": str(collection / "docs.jsonl")}
    return {"path": str(file), "format": "trec"} | texts


def write_candidates(file: Path, pools: Pools, collection: Path) -> dict[str, str]:
    """The same with the passages after their numbers (`with_numbers`)."""
    with file.open("w", encoding="utf-8") as stream:
        for query, text, pool in read_pools(collection, pools, read_scores=True):
            for passage, given, _ in pool:
                row = {"query_id": query, "query": text, "passage_id": passage, "passage": given}
                stream.write(json.dumps(row) + "\n")
    return {"path": str(file), "format": "jsonl"}
