import base64
import json
import os
import string
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyroaring
import pytest

from pipeline.errors import InputError, NotThereError
from pipeline.tables.candidates import read_shard
from pipeline.tables.config import InputConfig
from tests.tables.conftest import Row, check_every_row_once, nested, plan, read_all, rows


def write(path: Path | str, table: list[Row] | pa.Table, **options: Any) -> str:
    data = table if isinstance(table, pa.Table) else pa.Table.from_pylist(table)
    deltalake.write_deltalake(str(path), data, **options)
    return str(path)


@pytest.mark.parametrize("shard_pairs", [1, 4, 1000])
@pytest.mark.parametrize("shape", [rows, lambda: nested(rows())])
def test_every_row_is_read_once_in_order(tmp_path: Path, shape: Any, shard_pairs: int) -> None:
    check_every_row_once(write(tmp_path / "t", shape()), "delta", shard_pairs)


def test_the_version_that_was_planned_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "t", rows())
    planned = plan(path, "delta")
    write(path, [{**row, "query_id": f"new {row['query_id']}"} for row in rows()], mode="overwrite")
    config = InputConfig.model_validate({"path": path, "format": "delta"})
    candidates, _ = read_shard(planned.shards[0], config, {}, planned)
    assert candidates["query_id"].to_pylist() == [row["query_id"] for row in rows()]
    assert plan(path, "delta").identities() != planned.identities()
    first = 0
    assert plan(path, "delta", version=first).identities() == planned.identities()
    assert {row["query_id"][:3] for row in read_all(path, "delta")[0]} == {"new"}


def test_partitions_have_the_tables_types(tmp_path: Path) -> None:
    day = pa.array([20_000] * 6 + [None] * 9, pa.date32())
    table = pa.Table.from_pylist(rows()).append_column("day", day)
    table = table.append_column("lang", pa.array(["zh/Hant x"] * 15)).append_column("n", pa.array([7] * 15))
    path = write(tmp_path / "t", table, partition_by=["day", "lang", "n"])
    good, _ = read_all(path, "delta", shard_pairs=4, kept={"day": "day", "lang": "lang", "n": "n"})
    kept = {row["query_id"]: row["kept"] for row in good}
    assert kept["q0"] == {"day": day[0].as_py(), "lang": "zh/Hant x", "n": 7}
    assert kept["q4"]["day"] is None


def test_columns_added_later_are_null_before(tmp_path: Path) -> None:
    path = write(tmp_path / "t", rows(queries=1))
    more = [{**row, "query_id": "q9", "source": "web"} for row in rows(queries=1)]
    write(path, more, mode="append", schema_mode="merge")
    good, _ = read_all(path, "delta", kept={"source": "source"})
    assert {(row["query_id"], row["kept"]["source"]) for row in good} == {("q0", None), ("q9", "web")}
    with pytest.raises(InputError, match="no column 'sauce'"):
        plan(path, "delta", kept={"sauce": "sauce"})


def test_rows_that_were_deleted_are_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "t", rows())
    deltalake.DeltaTable(path).delete("query_id = 'q1'")
    good, _ = read_all(path, "delta")
    assert {row["query_id"] for row in good} == {"q0", "q2", "q3", "q4"}


def test_column_mapping_and_unknown_features_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t", rows())
    log = tmp_path / "t" / "_delta_log" / "00000000000000000000.json"
    text = log.read_text()
    log.write_text(text.replace('"configuration":{}', '"configuration":{"delta.columnMapping.mode":"name"}'))
    with pytest.raises(InputError, match=r"has column mapping \(name\).*Copy the table"):
        plan(path, "delta")


def test_deletion_vectors_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t", rows())
    log = tmp_path / "t" / "_delta_log" / "00000000000000000000.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        if "protocol" in action:
            features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
            action["protocol"] = {"minReaderVersion": 3, "minWriterVersion": 7, **features}
    log.write_text("".join(json.dumps(action) + "\n" for action in actions))
    assert len(read_all(path, "delta")[0]) == 15
    for action in actions:
        if "add" in action:
            action["add"]["deletionVector"] = deletion_vector([0, 3])
    log.write_text("".join(json.dumps(action) + "\n" for action in actions))
    assert pa.table(deltalake.DeltaTable(path).scan().read_all()).num_rows == 13
    with pytest.raises(InputError, match=r"1 of its files have deletion vectors.*REORG TABLE"):
        plan(path, "delta")


def deletion_vector(rows_deleted: list[int]) -> dict[str, Any]:
    """As the protocol writes a small one into the log: a magic number and a bitmap, in Z85."""
    bitmap = (1681511377).to_bytes(4, "little") + pyroaring.BitMap64(rows_deleted).serialize()
    padded = bitmap + b"\0" * (-len(bitmap) % 4)
    b85 = string.digits + string.ascii_uppercase + string.ascii_lowercase + "!#$%&()*+-;<=>?@^_`{|}~"
    z85 = string.digits + string.ascii_lowercase + string.ascii_uppercase + ".-:+=^!/*?&<>()[]{}@%$#"
    text = base64.b85encode(padded).decode().translate(str.maketrans(b85, z85))
    size = {"sizeInBytes": len(bitmap), "cardinality": len(rows_deleted)}
    return {"storageType": "i", "pathOrInlineDv": text, **size}


def test_files_that_were_vacuumed_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t", rows())
    planned = plan(path, "delta")
    (file,) = (tmp_path / "t").glob("*.parquet")
    file.unlink()
    config = InputConfig.model_validate({"path": path, "format": "delta"})
    with pytest.raises(InputError, match=r"\.parquet: changed while the job ran .*now gone"):
        read_shard(planned.shards[0], config, {}, planned)
    with pytest.raises(InputError, match=r"\.parquet: no such file"):
        plan(path, "delta")


def test_what_is_no_delta_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match=r"nowhere: not a readable Delta table"):
        plan(tmp_path / "nowhere", "delta")


def test_on_s3(bucket: str) -> None:
    options = {"aws_endpoint": os.environ["AWS_ENDPOINT_URL"], "allow_http": "true"}
    path = write(f"{bucket}/delta", rows(), storage_options={**options, "aws_conditional_put": "etag"})
    assert len(read_all(path, "delta", 4)[0]) == 15
