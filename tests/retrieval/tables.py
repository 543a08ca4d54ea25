"""What the tests of retrieval read, how they ask for it (in this process), and what it found."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.retrieval import flow
from pipeline.retrieval.config import RetrieveConfig
from pipeline.retrieval.summary import Summary

Row = dict[str, Any]


def write_jsonl(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_texts(folder: Path, passages: dict[Any, Any], queries: dict[Any, Any]) -> None:
    for name, texts in (("corpus", passages), ("queries", queries)):
        write_jsonl(folder / f"{name}.jsonl", [{"_id": key, "text": text} for key, text in texts.items()])


def config(folder: Path, **sections: Any) -> RetrieveConfig:
    """Of the files that `write_texts` made: by words, to `folder`/out."""
    output = {"path": str(folder / "out")} | sections.pop("output", {})
    settings = {
        "passages": {"path": str(folder / "corpus.jsonl"), "format": "jsonl"},
        "queries": {"path": str(folder / "queries.jsonl"), "format": "jsonl"},
        "sources": {"bm25": {"bm25": {}}},
        "executor": "here",
    }
    return RetrieveConfig.model_validate(settings | sections | {"output": output})


def make(retrieve: RetrieveConfig, *, check_bytes: bool = False) -> Summary:
    return flow.run(retrieve, check_bytes=check_bytes)


def rows_of(folder: Path, part: str = "out/candidates") -> list[Row]:
    rows: list[Row] = pq.read_table(folder / part).to_pylist()
    return rows


def bytes_of(output: Path) -> dict[str, bytes]:
    """All that a reader sees."""
    parts = ("candidates", "unmatched", "rejects", "embeddings")
    files = [
        *(path for part in parts for path in (output / part).rglob("*.parquet")),
        *output.glob("run*.trec"),
    ]
    return {str(path.relative_to(output)): path.read_bytes() for path in files if path.exists()}
