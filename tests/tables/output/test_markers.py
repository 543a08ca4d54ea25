from pathlib import Path

from pipeline.tables.input.shards import FileRange, Shard
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.markers import Counts, ShardReport, done_shards, mark_done, markers, names_done
from tests.reporting import reports


def shard(index: int, stop: int = 5) -> Shard:
    file_range = FileRange(file="a", identity="3 bytes", start=0, stop=stop, first_row=1)
    return Shard(index=index, file_ranges=(file_range,), queries=1, pairs=5)


def report(of: Shard) -> ShardReport:
    return reports.report(of.index, fingerprint=of.fingerprint)


def test_markers_tell_what_is_done(tmp_path: Path) -> None:
    output = Directory(str(tmp_path))
    shards = (shard(0), shard(1), shard(2))
    assert list(done_shards(output, shards)) == []
    mark_done(output, report(shards[1]))
    assert list(done_shards(output, shards)) == [report(shards[1])]


def test_a_marker_of_other_content_or_broken_does_not_count(tmp_path: Path) -> None:
    output = Directory(str(tmp_path))
    mark_done(output, report(shard(0, stop=4)))
    output.write("_manifest/done/shard-000001.json", b'{"name": "sha')
    assert list(done_shards(output, (shard(0), shard(1)))) == []
    output.write("_manifest/done/shard-000002.json", report(shard(1)).model_dump_json().encode())
    assert list(done_shards(output, (shard(0), shard(1), shard(2)))) == []
    assert names_done(output) == {"shard-000000", "shard-000001", "shard-000002"}
    assert [one.name for one in markers(output)] == ["shard-000000"]


def test_counts_add_up() -> None:
    one = Counts(pairs=3, copies=1, score_s=0.5, rejected={"b": 1, "a": 2})
    other = Counts(pairs=4, tokens=7, score_s=0.25, rejected={"a": 1})
    assert one.plus(other) == Counts(pairs=7, copies=1, tokens=7, score_s=0.75, rejected={"a": 3, "b": 1})
    assert one.plus(other).rows == 11
    assert Counts().plus(one) == one
