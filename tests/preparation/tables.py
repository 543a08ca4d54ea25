"""What the tests of the preparation read, how they ask for it (in this process), and what it wrote."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.preparation.config import PrepareConfig
from pipeline.tables.candidates import plan_table
from pipeline.tables.config import InputConfig

Row = dict[str, Any]
QUERIES = {"q1": "first query", "q2": "second ? 熊", "q3": "third"}
PASSAGES = {"p1": "one", "p2": "two", "p3": ""}


def write_jsonl(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def texts(rows: dict[Any, Any]) -> list[Row]:
    return [{"_id": text_id, "text": text} for text_id, text in rows.items()]


def config(folder: Path, candidates: dict[str, Any], **sections: Any) -> PrepareConfig:
    settings = {
        "candidates": candidates,
        "queries": {"path": str(folder / "queries.jsonl"), "format": "jsonl"},
        "passages": {"path": str(folder / "corpus.jsonl"), "format": "jsonl"},
        "output": {"path": str(folder / "out")},
        "executor": "here",
    }
    return PrepareConfig.model_validate(settings | sections)


def trec(folder: Path, **sections: Any) -> PrepareConfig:
    return config(folder, {"path": str(folder / "run.trec"), "format": "trec"}, **sections)


def output_rows(folder: Path, part: str = "candidates") -> list[Row]:
    rows: list[Row] = pq.read_table(folder / "out" / part).to_pylist()
    return rows


def ids(rows: list[Row]) -> list[tuple[Any, Any]]:
    return [(row["query_id"], row["passage_id"]) for row in rows]


def bytes_of(output: Path) -> dict[str, bytes]:
    files = [*output.glob("candidates/*"), *output.glob("rejects/*")]
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def planned(folder: Path) -> tuple[int, int]:
    """Queries and pairs, as `rerank` plans them."""
    shards = plan_table(InputConfig(path=str(folder / "out/candidates")), {}, 2).shards
    return sum(shard.queries for shard in shards), sum(shard.pairs for shard in shards)
