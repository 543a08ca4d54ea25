"""Ids from the table to the run: of the type they came in, and equal scores in that type's order."""

import io
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.ranking import rank
from pipeline.tables.candidates import plan_table, read_shard
from pipeline.tables.config import InputConfig
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.run import write_shard

NAMES = {"query_id": "Query Id", "query": "text", "passage_id": "docno", "passage": "body"}
TEXT, BINARY = ["10", "9", "a", "Z", "é", "熊"], [b"\xff", b"", b"a", b"\x00", b"ab", b"10"]
IDS = {
    "int32": pa.array([10, 9, -1, 0, 2**31 - 1, -(2**31)], pa.int32()),
    "int64": pa.array([10, 9, -1, 0, 2**53 + 1, 2**53], pa.int64()),
    "uint64": pa.array([10, 9, 2**64 - 1, 0, 2**63, 1], pa.uint64()),
    "string": pa.array(TEXT),
    "large_string": pa.array(TEXT, pa.large_string()),
    "dictionary": pa.array(TEXT).dictionary_encode(),
    "binary": pa.array(BINARY),
    "large_binary": pa.array(BINARY, pa.large_binary()),
}
READ_AS = {
    **dict.fromkeys(("large_string", "dictionary"), pa.string()),
    "large_binary": pa.binary(),
}
"""The others are what they are; these differ from it in memory only."""


def reranked(path: Path, table_format: str, output: Path) -> pa.Table:
    """The run of a table whose candidates all score the same."""
    fields = {"path": str(path), "format": table_format, "columns": NAMES}
    config, kept = InputConfig.model_validate(fields), {"id again": "docno", "n": "n"}
    planned = plan_table(config, kept, 6)
    for shard in planned.shards:
        candidates, rejects = read_shard(shard, config, kept, planned)
        assert rejects.num_rows == 0
        for name in ("query_cut", "passage_cut", "window"):
            zeros = pa.array(np.zeros(candidates.num_rows), pa.int32())
            candidates = candidates.append_column(name, zeros)
        scores = np.zeros(candidates.num_rows, np.float32)
        ranked = rank(candidates.append_column("score", pa.array(scores)), scores, None)
        write_shard(Directory(str(output)), shard.name, ranked, rejects)
    parts = [io.BytesIO(file.read_bytes()) for file in sorted((output / "run").iterdir())]
    return pa.concat_tables([pq.read_table(part) for part in parts])


@pytest.mark.parametrize("table_format", ["parquet", "lance"])
@pytest.mark.parametrize("kind", IDS)
def test_ids_keep_their_type_and_its_order(tmp_path: Path, kind: str, table_format: str) -> None:
    ids, expected = IDS[kind], READ_AS.get(kind, IDS[kind].type)
    each = pa.array(np.repeat(np.arange(6), 6))
    table: dict[str, Any] = {
        "n": pa.array(range(36), pa.uint16()),
        "body": ["text"] * 36,
        "docno": ids.take(pa.array(np.tile(np.arange(6), 6))),
        "unused": [{"a": 1}] * 36,
        "text": ["text"] * 36,
        "Query Id": ids.take(each),
    }
    path = tmp_path / f"t.{table_format}"
    if table_format == "lance":
        lance.write_dataset(pa.table(table), str(path))
    else:
        pq.write_table(pa.table(table), path)
    run = reranked(path, table_format, tmp_path / "out")
    types = {name: run.schema.field(name).type for name in ("query_id", "passage_id", "id again", "n")}
    assert types == {"query_id": expected, "passage_id": expected, "id again": expected, "n": pa.uint16()}
    assert run["query_id"].to_pylist() == ids.take(each).to_pylist()
    assert run["passage_id"].to_pylist() == sorted(ids.to_pylist()) * 6
    assert run["id again"].equals(run["passage_id"])
