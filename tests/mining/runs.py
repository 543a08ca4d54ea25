"""A small run with its texts, and how to mine it in this process."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.mining.config import MineConfig

Row = dict[str, Any]


def rows(queries: int = 6, candidates: int = 8) -> list[Row]:
    """Queries q0, q1, ... whose passages p0, p1, ... score 1, 0.9, 0.8, ...; p1 is labelled a positive."""
    return [
        {
            "query_id": f"q{q}",
            "query": f"query {q}",
            "passage_id": f"p{p}",
            "passage": f"passage {p} of {q}",
            "score": 1 - p / 10,
            "label": int(p == 1),
        }
        for q in range(queries)
        for p in range(candidates)
    ]


def write(folder: Path, table: list[Row]) -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table), folder / "part-0.parquet")
    return folder


def config(table: Path, out: str = "out", **sections: Any) -> MineConfig:
    negatives = {"ranks": [1, 100], **sections.pop("negatives", {})}
    settings = {
        "input": {"path": str(table)},
        "positives": {"label": "label"},
        "negatives": negatives,
        "output": {"path": str(table.parent / out)},
        "shard_pairs": 16,
        "executor": "here",
    }
    return MineConfig.model_validate(settings | sections)


def mined(output: Path) -> dict[str, Row]:
    """The training rows by their queries."""
    files = sorted(output.glob("training_rows/*"))
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return {row["query"]: row for row in lines}


def bytes_of(output: Path) -> dict[str, bytes]:
    """All that a reader sees."""
    files = [file for part in ("training_rows", "unmatched", "rejects") for file in output.glob(f"{part}/*")]
    return {str(file.relative_to(output)): file.read_bytes() for file in files}
