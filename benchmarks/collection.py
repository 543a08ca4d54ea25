"""A collection: docs.jsonl (_id, title, text), queries.jsonl (_id, text), qrels.txt and run.bm25.txt, as TREC
has them. docs/benchmarks.md says where the ones of the notes come from.
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

Pairs = list[tuple[str, str]]
SEED = 20


def with_files(*names: str) -> Callable[[str], Path]:
    """For argparse: a folder that has docs.jsonl, queries.jsonl and these."""

    def check(text: str) -> Path:
        for name in ("docs.jsonl", "queries.jsonl", *names):
            if not (Path(text) / name).is_file():
                raise argparse.ArgumentTypeError(
                    f"{text}: is no collection: has no {name}; docs/benchmarks.md says what one is"
                )
        return Path(text)

    return check


def rows_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def sample_pairs(collection: Path, count: int) -> Pairs:
    """Draw (query, passage) pairs from the collection's BM25 run."""
    queries = {row["_id"]: row["text"] for row in rows_of(collection / "queries.jsonl")}
    passages = {row["_id"]: row["title"] + " " + row["text"] for row in rows_of(collection / "docs.jsonl")}
    run = (collection / "run.bm25.txt").read_text().splitlines()
    hits = [line.split() for line in random.Random(SEED).sample(run, min(count, len(run)))]
    return [(queries[query_id], passages[passage_id]) for query_id, _, passage_id, *_ in hits]
