"""A start of a job has its output alone, and works on what is not finished."""

from pathlib import Path

import fsspec
import pytest

from pipeline.errors import OutputError
from pipeline.job_record import JobRecord, read_record
from pipeline.output import (
    Start,
    finish,
    is_complete,
    open_directory,
)
from pipeline.reporting.summary import Summary
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.lease import Lease, last_heartbeat
from pipeline.tables.output.manifest import Manifest, volumes
from tests.reporting.reports import summary
from tests.test_output import RECORD, RESULTS, begin


@pytest.fixture
def output(tmp_path: Path) -> Directory:
    return Directory(str(tmp_path / "out"))


def test_a_bucket_that_is_missing_is_told_and_not_made(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_directory(f"{bucket}/run", []).url == f"{bucket}/run"
    for _ in range(2):
        with pytest.raises(
            OutputError, match=f"^{bucket}-typo/run: there is no bucket {bucket[5:]}-typo: corr"
        ):
            open_directory(f"{bucket}-typo/run", [])

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError("Forbidden")

    # An account that may write there may be none that may ask for the bucket.
    monkeypatch.setattr(fsspec.filesystem("s3"), "info", forbidden)
    open_directory(f"{bucket}-typo/run", [])


def start(output: Directory, record: JobRecord = RECORD) -> Start[Summary]:
    return Start(output, record, RESULTS, Summary)


def refuse_to_work(_held: Lease, _finished: Summary | None) -> Summary:
    pytest.fail("work began")


def test_a_start_works_alone_on_what_is_not_finished(output: Directory) -> None:
    def work(held: Lease, finished: Summary | None) -> Summary:
        assert finished is None
        assert (read_record(output), is_complete(output)) == (RECORD, False)
        held.add(5)
        stamp = output.write("run/a.parquet", b"data")
        manifest = Manifest(
            folders=volumes({"run/a.parquet": stamp}, ["run"]), files={"run/a.parquet": stamp}
        )
        finish(output, summary(), RESULTS, complete=True, manifest=manifest)
        return summary()

    assert start(output).run(work, lambda: 1).finished_before is None
    heartbeat = last_heartbeat(output)
    assert heartbeat is not None
    assert (heartbeat.state, heartbeat.shards, heartbeat.shards_done, heartbeat.pairs_done) == (
        "finished", 2, 2, 5,
    )  # fmt: skip
    again = start(output).run(refuse_to_work, lambda: 0)
    assert again == summary().model_copy(update={"finished_before": again.finished_before})
    told = f"Finished before, at {again.finished_before}; nothing was scored now.\n"
    assert again.as_text().startswith(told)
    output.write("run/a.parquet", b"cut")
    assert start(output).run(work, lambda: 1).finished_before is None


def test_a_finished_job_that_lacks_something_is_worked_on_again(output: Directory) -> None:
    begin(output)
    finish(output, summary(), RESULTS, complete=True, manifest=Manifest(folders={}, files={}))

    def add(_held: Lease, finished: Summary | None) -> Summary:
        assert finished is not None
        assert not is_complete(output)
        return finished

    found = start(output).run(add, lambda: 2, lacks=lambda finished: finished.finished_before is not None)
    assert found.finished_before is not None


def test_what_another_start_wrote_since_is_seen_before_any_work(output: Directory) -> None:
    def another_job() -> int:
        begin(output, RECORD.model_copy(update={"models": {"scorer": "sha256:2"}}))
        output.write("run/shard-0.parquet", b"x")
        return 0

    with pytest.raises(OutputError, match="were sha256:2, are sha256:1"):
        start(output).run(refuse_to_work, another_job)


def test_what_another_start_has_finished_since_is_not_done_again(output: Directory) -> None:
    def the_same_job() -> int:
        begin(output)
        finish(output, summary(), RESULTS, complete=True, manifest=Manifest(folders={}, files={}))
        return 0

    assert start(output).run(refuse_to_work, the_same_job).finished_before is not None
