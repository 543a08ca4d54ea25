import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.tables.output import format_version
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import Kind, check_version, stamped
from pipeline.tables.output.run import parquet_bytes, read_run_file

SCHEMA = pa.schema([("a", pa.int64())], metadata={"theirs": "stays"})
WAY_OUT = "Leave reuse out to score every pair"


def check(schema: pa.Schema, kind: Kind = "scores", *, needed: bool = True) -> None:
    check_version(schema, "out/scores/s.parquet", kind, WAY_OUT, needed=needed)


def test_a_file_says_what_it_is() -> None:
    table = pa.table({"a": [1, 2]}, schema=SCHEMA)
    data = parquet_bytes(table, "scores")
    assert parquet_bytes(table, "scores") == data
    schema = pq.read_schema(io.BytesIO(data))
    assert schema.metadata == {b"theirs": b"stays", b"rayrank": b'{"kind": "scores", "format_version": 2}'}
    check(schema)
    assert pq.read_table(io.BytesIO(data)) == table


def test_a_newer_file_is_refused_with_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_version, "FORMAT_VERSION", 3)
    newer = stamped(SCHEMA, "scores")
    monkeypatch.undo()
    with pytest.raises(InputError) as caught:
        check(newer, needed=False)
    assert str(caught.value) == (
        "out/scores/s.parquet: is of format version 3, which a newer version of this program wrote; this one"
        f" reads version 2. {WAY_OUT}"
    )


def test_a_file_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match=r"s.parquet: holds run \(format version 2\), not scores. Leave"):
        check(stamped(SCHEMA, "run"))


def test_a_file_without_a_version_is_refused_where_it_is_state_of_our_own() -> None:
    check(SCHEMA, needed=False)
    with pytest.raises(InputError, match="has no format version.*this one reads version 2. Leave reuse out"):
        check(SCHEMA)


@pytest.mark.parametrize("stamp", ["", "[]", '{"kind": "scores"}', '{"kind": "s", "format_version": null}'])
def test_a_damaged_stamp_is_named(stamp: str) -> None:
    with pytest.raises(InputError, match="s.parquet: its metadata 'rayrank' is damaged"):
        check(SCHEMA.with_metadata({"rayrank": stamp}), needed=False)


def test_a_run_of_a_newer_program_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, table = Directory(str(tmp_path)), pa.table({"query_id": ["q"]})
    stamp = output.write("run/a.parquet", parquet_bytes(table, "run"))
    assert read_run_file(output, "run/a.parquet", stamp) == table
    monkeypatch.setattr(format_version, "FORMAT_VERSION", 3)
    stamp = output.write("run/a.parquet", parquet_bytes(table, "run"))
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"run/a.parquet: is of format version 3.*Start its job again"):
        read_run_file(output, "run/a.parquet", stamp)
