from pathlib import Path

import pytest

from pipeline.errors import InputError, OutputError
from pipeline.tables.input.shards import FileRange, Shard
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.done_marker import mark_done, names_done
from pipeline.tables.output.markers import (
    Counts,
    ShardReport,
    done_shards,
    markers,
    run_files,
)
from tests.reporting import reports

WRITTEN = ("run", "rejects", "scores")


def shard(index: int, stop: int = 5) -> Shard:
    file_range = FileRange(file="a", identity="3 bytes", start=0, stop=stop, first_row=1)
    return Shard(index=index, file_ranges=(file_range,), queries=1, candidates=5, pairs=5)


def done(output: Directory, of: Shard) -> ShardReport:
    """Write what a shard leaves."""
    names = [f"{folder}/{of.name}.parquet" for folder in WRITTEN]
    files = {name: output.write(name, name.encode()) for name in names}
    report = reports.report(of.index, fingerprint=of.fingerprint, files=files)
    mark_done(output, report)
    return report


def found(output: Directory, *shards: Shard, check_bytes: bool = False) -> list[str]:
    return [report.name for report in done_shards(output, "job", shards, check_bytes=check_bytes)]


def test_markers_tell_what_is_done(tmp_path: Path) -> None:
    output = Directory(str(tmp_path))
    shards = (shard(0), shard(1), shard(2))
    assert list(done_shards(output, "job", shards, check_bytes=True)) == []
    report = done(output, shards[1])
    assert list(done_shards(output, "job", shards, check_bytes=True)) == [report]
    assert list(run_files(output, "job", ["shard-000001"])) == [
        ("run/shard-000001.parquet", report.files["run/shard-000001.parquet"])
    ]
    with pytest.raises(InputError, match=r"done/shard-000002.json: is missing; start its job again"):
        list(run_files(output, "job", ["shard-000002"]))


def test_a_marker_of_other_content_or_broken_does_not_count(tmp_path: Path) -> None:
    output = Directory(str(tmp_path))
    done(output, shard(0, stop=4))
    assert found(output, shard(0)) == []
    done(output, shard(1))
    written = (output.read("_manifest/done/shard-000001.json") or b"").replace(b'"pairs": 20', b'"pairs": 21')
    for data in (b"", written[:50], written, b"{}", b"[]", b"\xff", b"[" * 10**6):
        output.write("_manifest/done/shard-000001.json", data)
        assert found(output, shard(0), shard(1)) == []
    done(output, shard(1))
    assert list(done_shards(output, "another", [shard(0), shard(1)], check_bytes=False)) == []
    output.write("_manifest/done/shard-000002.json", output.read("_manifest/done/shard-000001.json") or b"")
    assert found(output, shard(0), shard(1), shard(2)) == ["shard-000001"]
    assert names_done(output, ShardReport) == {"shard-000000", "shard-000001", "shard-000002"}
    names = [f"shard-00000{index}" for index in range(4)]
    assert [getattr(one, "what", "whole") for one in markers(output, "job", names)] == [
        "whole", "whole", "is the marker of another job or shard", "is missing",
    ]  # fmt: skip


@pytest.mark.parametrize("folder", WRITTEN)
def test_a_marker_does_not_count_without_its_data(
    tmp_path: Path, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    output, file = Directory(str(tmp_path)), f"{folder}/shard-000000.parquet"
    done(output, shard(0))
    whole = output.read(file) or b""
    for data, told in ((None, "is missing"), (b"", "has 0 bytes, and"), (whole[:-1], "bytes, and")):
        output.remove_file(file) if data is None else output.write(file, data)
        assert found(output, shard(0)) == []
        assert f"file={tmp_path}/{file}" in caplog.text
        assert told in caplog.text
        caplog.clear()
    output.write(file, b"X" + whole[1:])
    assert found(output, shard(0)) == ["shard-000000"]  # a listing does not tell it
    assert found(output, shard(0), check_bytes=True) == []
    assert "holds other bytes than were written" in caplog.text


def test_a_file_that_is_no_shards_is_refused(tmp_path: Path) -> None:
    output = Directory(str(tmp_path))
    done(output, shard(0))
    output.write("run/_shard-000009.parquet.0a1b.tmp", b"a writer that was killed")
    assert found(output, shard(0)) == ["shard-000000"]
    output.write("run/part-0.parquet", b"x")
    with pytest.raises(OutputError, match=r"run/part-0.parquet: is no file of this output; remove it"):
        found(output, shard(0))


def test_counts_add_up() -> None:
    one = Counts(pairs=3, copies=1, score_s=0.5, rejected={"b": 1, "a": 2})
    other = Counts(pairs=4, tokens=7, score_s=0.25, rejected={"a": 1})
    assert one.plus(other) == Counts(pairs=7, copies=1, tokens=7, score_s=0.75, rejected={"a": 3, "b": 1})
    assert Counts().plus(one) == one
