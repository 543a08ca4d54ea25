"""Rank the sample passages for every sample query with BM25 and write the first stage's candidates.

Run it from the repository root:

    python examples/build_candidates.py

It reads queries.jsonl and passages.jsonl beside this file and writes there, the same bytes every time:
run.bm25.trec, the 20 best passages of each query as a TREC run; and candidates/part-*.parquet, the same as
a flat table, one row a candidate, eight queries a file. It needs only pyarrow.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
TOP_K = 20
QUERIES_PER_FILE = 8
K1 = 1.2
B = 0.75

# A run of Han characters, kana or hangul; or a run of any other word characters.
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
TOKEN = re.compile(rf"[{CJK}]+|[^\W{CJK}]+")
IS_CJK = re.compile(rf"[{CJK}]")

COLUMNS: dict[str, pa.DataType] = {
    "query_id": pa.string(),
    "query": pa.string(),
    "passage_id": pa.string(),
    "passage": pa.string(),
    "first_stage_rank": pa.int32(),
    "first_stage_score": pa.float32(),
}


def read_jsonl(path: Path) -> dict[str, str]:
    """Read the texts of a JSON Lines file, by id, in the order of the file."""
    with path.open(encoding="utf-8") as lines:
        return {row["_id"]: row["text"] for row in map(json.loads, lines)}


def tokens(text: str) -> list[str]:
    """Split a text into lower-cased words and, where it is CJK, into pairs of characters."""
    found: list[str] = []
    for word in TOKEN.findall(text.lower()):
        if IS_CJK.match(word) and len(word) > 1:
            found.extend(word[i : i + 2] for i in range(len(word) - 1))
        else:
            found.append(word)
    return found


class BM25:
    """BM25 over a small set of passages held in memory."""

    def __init__(self, passages: dict[str, str]) -> None:
        """Count the terms of every passage."""
        self.counts = {pid: Counter(tokens(text)) for pid, text in passages.items()}
        self.lengths = {pid: sum(count.values()) for pid, count in self.counts.items()}
        self.mean_length = sum(self.lengths.values()) / len(self.lengths)
        holders = Counter(term for count in self.counts.values() for term in count)
        total = len(passages)
        self.idf = {term: math.log(1 + (total - n + 0.5) / (n + 0.5)) for term, n in holders.items()}

    def top(self, text: str) -> list[tuple[str, float]]:
        """Return the best passages of a query with their scores; ties, zeros too, go by passage id."""
        query, scores = tokens(text), dict[str, float]()
        for pid, count in self.counts.items():
            norm = K1 * (1 - B + B * self.lengths[pid] / self.mean_length)
            terms = [term for term in query if term in count]
            scores[pid] = sum(self.idf[t] * count[t] * (K1 + 1) / (count[t] + norm) for t in terms)
        return sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))[:TOP_K]


def main() -> None:
    """Build the run and the table."""
    queries, passages = read_jsonl(HERE / "queries.jsonl"), read_jsonl(HERE / "passages.jsonl")
    index = BM25(passages)
    hits = {qid: list(enumerate(index.top(text), start=1)) for qid, text in queries.items()}

    run = [f"{qid} Q0 {pid} {rank} {score:.6f} bm25\n" for qid in hits for rank, (pid, score) in hits[qid]]
    (HERE / "run.bm25.trec").write_text("".join(run), encoding="utf-8", newline="\n")

    folder = HERE / "candidates"
    folder.mkdir(exist_ok=True)
    for part, start in enumerate(range(0, len(queries), QUERIES_PER_FILE)):
        rows = [
            (qid, queries[qid], pid, passages[pid], rank, score)
            for qid in list(queries)[start : start + QUERIES_PER_FILE]
            for rank, (pid, score) in hits[qid]
        ]
        columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
        pq.write_table(pa.table(columns, pa.schema(COLUMNS)), folder / f"part-{part}.parquet")


if __name__ == "__main__":
    main()
