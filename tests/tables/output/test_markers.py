from pathlib import Path

import pytest

from pipeline.errors import OutputError
from pipeline.tables.input.shards import FileRange, Shard
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.markers import (
    JobRecord,
    ShardReport,
    check_output,
    done_shards,
    mark_done,
    open_output,
)
from tests.reporting import reports

RECORD = JobRecord(
    shards=2,
    pairs=10,
    config={"scorer.model": "m", "output.top_k": 10},
    model_fingerprint="sha256:1",
    files={"a": "3 bytes", "b": "4 bytes"},
)


def shard(index: int, stop: int = 5) -> Shard:
    file_range = FileRange(file="a", identity="3 bytes", start=0, stop=stop, first_row=1)
    return Shard(index=index, file_ranges=(file_range,), queries=1, pairs=5)


def report(of: Shard) -> ShardReport:
    return reports.report(of.index, fingerprint=of.fingerprint)


def test_the_same_job_goes_on(tmp_path: Path) -> None:
    output = Directory(str(tmp_path / "out"))
    open_output(output, RECORD)
    open_output(output, RECORD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"scorer.model": "m", "output.top_k": 5}}, "output.top_k: was 10, is 5"),
        ({"config": {"scorer.model": "n", "output.top_k": 10}}, 'scorer.model: was "m", is "n"'),
        ({"model_fingerprint": "sha256:2"}, "the model's weights or files: were sha256:1, are sha256:2"),
        ({"files": {"a": "3 bytes"}}, "b: was 4 bytes, is gone"),
        ({"files": {**RECORD.files, "c": "1 bytes"}}, "c: is new"),
        ({"files": {**RECORD.files, "b": "9 bytes"}}, "b: was 4 bytes, is 9 bytes"),
    ],
)
def test_another_job_is_refused_with_what_differs(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    output = Directory(str(tmp_path))
    open_output(output, RECORD)
    mark_done(output, report(shard(0)))
    with pytest.raises(OutputError, match="holds the output of another job") as caught:
        open_output(output, RECORD.model_copy(update=change))
    assert message in str(caught.value)


def test_files_of_unknown_origin_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="not empty, and no output of this program .holds thesis.tex"):
        open_output(Directory(str(tmp_path)), RECORD)


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


def test_a_start_that_was_killed_before_its_plan_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "_manifest").mkdir()
    open_output(Directory(str(tmp_path)), RECORD)


def test_an_attempt_that_got_nowhere_gives_way(tmp_path: Path) -> None:
    output = Directory(str(tmp_path))
    open_output(output, RECORD)
    other = RECORD.model_copy(update={"model_fingerprint": "sha256:2"})
    open_output(output, other)
    assert check_output(output, other) == other
    output.write("run/shard-000000.parquet", b"data")
    with pytest.raises(OutputError, match="holds the output of another job"):
        open_output(output, RECORD)
