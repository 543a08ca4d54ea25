import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline import status
from pipeline.output import write_record
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.lease import Heartbeat
from tests.test_output import RECORD

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def output(tmp_path: Path, **changes: object) -> Directory:
    """A job of 8 shards, 2 of them done, that began ten minutes ago and was heard ten seconds ago."""
    directory = Directory(str(tmp_path / "out"))
    write_record(directory, RECORD.model_copy(update={"shards": 8, "pairs": 8000}))
    for name in ("shard-000000", "shard-000001"):
        directory.write(f"_manifest/done/{name}.json", b"{}")
    heartbeat = Heartbeat(
        state="running", number=3, host="node", pid=5, started=NOW - timedelta(seconds=610),
        time=NOW - timedelta(seconds=10), shards=8, shards_done=2, pairs_done=1200,
    ).model_copy(update=changes)  # fmt: skip
    directory.write("_manifest/driver/000002.json", heartbeat.model_dump_json().encode())
    return directory


def test_a_running_job(tmp_path: Path) -> None:
    assert status.read(output(tmp_path), NOW).lines() == [
        "state    running",
        "shards   2 of 8 done (25.0%)",
        "pairs    8000 in all",
        "driver   process 5 on node",
        "since    2026-11-21 11:49:50 UTC, last heard 2026-11-21 11:59:50 UTC",
        "speed    2.0 pairs/s in this start, about 50 minutes left",
    ]


def test_a_dead_job_is_silent(tmp_path: Path) -> None:
    first, *_ = status.read(output(tmp_path), NOW + timedelta(minutes=5)).lines()
    assert first.startswith("state    dead: it says it runs, but is silent.")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"state": "interrupted"}, "state    interrupted"),
        ({"state": "failed", "message": "no space"}, "state    failed: no space"),
    ],
)
def test_how_it_ended(tmp_path: Path, changes: dict[str, str], line: str) -> None:
    assert status.read(output(tmp_path, **changes), NOW + timedelta(days=1)).lines()[0] == line


def test_no_job_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main(["--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}: no output of a job (no _manifest in it)\n"


def test_programs_read_it_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = output(tmp_path, state="finished")
    assert status.main(["--output", directory.url, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["complete"], told["shards_done"], told["shards"]) == ("finished", False, 2, 8)
    assert told["pairs_per_s"] == 2.0
    directory.write("_SUCCESS", b"")
    assert status.main(["--output", directory.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["complete"] is True
