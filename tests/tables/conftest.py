"""One small table in every format, and how to plan and read it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.tables.candidates import Plan, plan_table, read_shard
from pipeline.tables.config import InputConfig

TEXTS = ("query_id", "query", "passage_id", "passage")
Row = dict[str, Any]
Writer = Callable[[Path, list[Row]], Path]


def rows(queries: int = 5, candidates: int = 3) -> list[Row]:
    """A flat table: queries q0, q1, ... with passages p0, p1, ..., some of their texts awkward."""
    return [
        {
            "query_id": f"q{q}",
            "query": f'what, "is" {q}?\nsecond line é',
            "passage_id": f"p{p}",
            "passage": f"passage {p}\tof {q} 熊",
            "first_score": float(p),
        }
        for q in range(queries)
        for p in range(candidates)
    ]


def write_parquet(path: Path, table: list[Row]) -> Path:
    target = path.with_suffix(".parquet")
    pq.write_table(pa.Table.from_pylist(table), target, row_group_size=4)
    return target


def write_jsonl(path: Path, table: list[Row]) -> Path:
    target = path.with_suffix(".jsonl")
    target.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table))
    return target


def write_csv(path: Path, table: list[Row]) -> Path:
    target = path.with_suffix(".csv")
    with target.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return target


WRITERS: dict[str, Writer] = {"parquet": write_parquet, "jsonl": write_jsonl, "csv": write_csv}


@pytest.fixture(params=WRITERS)
def flat_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def nested(table: list[Row]) -> list[Row]:
    """The same table, a row a query."""
    queries: dict[str, Row] = {}
    for row in table:
        query = queries.setdefault(
            row["query_id"], {"query_id": row["query_id"], "query": row["query"], "candidates": []}
        )
        query["candidates"].append({key: row[key] for key in ("passage_id", "passage", "first_score")})
    return list(queries.values())


def plan(path: Path | str, table_format: str, shard_pairs: int = 100, **options: Any) -> Plan:
    kept = options.pop("kept", {})
    config = InputConfig.model_validate({"path": str(path), "format": table_format, **options})
    return plan_table(config, kept, shard_pairs)


def read_all(
    path: Path | str, table_format: str, shard_pairs: int = 100, **options: Any
) -> tuple[list[Row], list[Row]]:
    """All the candidates and all the rejects, shard by shard."""
    kept = options.pop("kept", {})
    config = InputConfig.model_validate({"path": str(path), "format": table_format, **options})
    planned = plan_table(config, kept, shard_pairs)
    good: list[Row] = []
    bad: list[Row] = []
    for shard in planned.shards:
        candidates, rejects = read_shard(shard, config, kept, planned)
        good += candidates.to_pylist()
        bad += rejects.to_pylist()
    return good, bad


def check_every_row_once(path: str, table_format: str, shard_pairs: int) -> None:
    """That a table of rows() is read in its order, with nothing lost or rejected."""
    good, bad = read_all(path, table_format, shard_pairs, kept={"first": "first_score"})
    assert [[row[name] for name in TEXTS] for row in good] == [
        [row[name] for name in TEXTS] for row in rows()
    ]
    assert good[1]["kept"] == {"first": 1.0}
    assert bad == []
