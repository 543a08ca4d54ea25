import os
import shutil
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import InputError, NotThereError
from pipeline.tables.candidates import read_shard
from pipeline.tables.config import InputConfig
from tests.tables.conftest import Row, check_every_row_once, nested, plan, read_all, rows


def write(path: Path | str, table: list[Row] | pa.Table, **options: Any) -> str:
    data = table if isinstance(table, pa.Table) else pa.Table.from_pylist(table)
    lance.write_dataset(data, str(path), **options)
    return str(path)


@pytest.mark.parametrize("shard_pairs", [1, 4, 1000])
@pytest.mark.parametrize("shape", [rows, lambda: nested(rows())])
def test_every_row_is_read_once_in_order(tmp_path: Path, shape: Any, shard_pairs: int) -> None:
    check_every_row_once(write(tmp_path / "t.lance", shape(), max_rows_per_file=4), "lance", shard_pairs)


def test_the_version_that_was_planned_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "t.lance", rows())
    planned = plan(path, "lance")
    lance.dataset(path).delete("query_id = 'q1'")
    config = InputConfig.model_validate({"path": path, "format": "lance"})
    candidates, _ = read_shard(planned.shards[0], config, {}, planned)
    assert candidates["query_id"].to_pylist() == [row["query_id"] for row in rows()]
    assert plan(path, "lance").identities() != planned.identities()
    first = 1
    assert plan(path, "lance", version=first).identities() == planned.identities()
    good, _ = read_all(path, "lance", shard_pairs=4)
    assert [row["query_id"] for row in good] == [r["query_id"] for r in rows() if r["query_id"] != "q1"]
    assert [row["row"] for row in good] == list(range(1, 13))


def test_another_table_in_its_place_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "t.lance", rows())
    planned = plan(path, "lance")
    shutil.rmtree(path)
    write(path, rows())
    config = InputConfig.model_validate({"path": path, "format": "lance"})
    with pytest.raises(InputError, match="changed while the job ran"):
        read_shard(planned.shards[0], config, {}, planned)


def test_a_name_that_lance_can_not_read_is_told(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(rows())
    path = write(tmp_path / "t.lance", table.rename_columns({"passage": "a `body`"}))
    with pytest.raises(InputError, match=r"column a `body`: Lance reads no column with a backtick"):
        read_all(path, "lance", columns={"passage": "a `body`"})


def test_columns_changed_later(tmp_path: Path) -> None:
    path = write(tmp_path / "t.lance", rows())
    lance.dataset(path).add_columns({"twice": "first_score * 2"})
    renamed: Any = {"path": "passage", "name": "The Body"}
    lance.dataset(path).alter_columns(renamed)
    good, _ = read_all(path, "lance", columns={"passage": "The Body"}, kept={"twice": "twice"})
    assert good[2]["kept"] == {"twice": 4.0}
    assert good[2]["passage"] == rows()[2]["passage"]
    with pytest.raises(InputError, match="no column 'passage'; it has query_id"):
        plan(path, "lance")


def test_nested_rows_without_candidates(tmp_path: Path) -> None:
    table = nested(rows(queries=4))
    table[1]["candidates"] = None
    table[2]["candidates"] = []
    good, bad = read_all(write(tmp_path / "t.lance", table), "lance", shard_pairs=2)
    assert {row["query_id"] for row in good} == {"q0", "q3"}
    assert [(row["row"], row["reason"]) for row in bad] == [(2, "null_candidates")]


def test_a_scan_reads_no_texts(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(97, 123, (400, 5000), np.uint8)
    candidates = [[{"passage_id": "p", "passage": line.tobytes().decode()}] for line in noise]
    ids = [f"q{number}" for number in range(400)]
    path = write(tmp_path / "t.lance", pa.table({"query_id": ids, "query": ids, "candidates": candidates}))
    dataset = lance.dataset(path)
    columns = {"query_id": "`query_id`", "candidates": "array_length(`candidates`)"}
    dataset.scanner(columns=columns).to_table()
    assert dataset.io_stats_incremental().read_bytes < 2_000_000


def test_what_is_no_lance_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match=r"nowhere: not a readable Lance table"):
        plan(tmp_path / "nowhere", "lance")


def test_on_s3(bucket: str) -> None:
    options = {"aws_endpoint": os.environ["AWS_ENDPOINT_URL"], "allow_http": "true"}
    path = write(f"{bucket}/t.lance", rows(), storage_options=options)
    assert len(read_all(path, "lance", 4)[0]) == 15
