import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import status
from pipeline.job_record import write_record
from pipeline.output import finish
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.done_marker import mark_done
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.output.lease import Heartbeat
from pipeline.tables.output.manifest import Manifest
from pipeline.tables.output.tasks import TaskReport
from tests.outputs import finish_run
from tests.reporting.reports import quarantined, report, summary
from tests.test_output import RECORD

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def output(tmp_path: Path, **changes: object) -> Directory:
    """A job of 8 shards, 2 of them done, that began ten minutes ago and was heard ten seconds ago."""
    directory = Directory(str(tmp_path / "out"))
    write_record(directory, RECORD.model_copy(update={"shards": 8, "pairs": 8000}))
    for name in ("shard-000000", "shard-000001"):
        for file in (f"run/{name}.parquet", f"scores/{name}.parquet", f"_manifest/done/{name}.json"):
            directory.write(file, b"{}")
    heartbeat = Heartbeat(
        state="running", number=3, host="node pid:[4026531836]", pid=5, started=NOW - timedelta(seconds=610),
        time=NOW - timedelta(seconds=10), shards=8, shards_done=2, pairs_done=1200,
    ).model_copy(update=changes)  # fmt: skip
    directory.write("_manifest/driver/000002.json", heartbeat.model_dump_json().encode())
    return directory


def test_a_running_job(tmp_path: Path) -> None:
    assert status.read(output(tmp_path), NOW).lines() == [
        "state    running",
        "shards   2 of 8 done (25.0%)",
        "pairs    8000 in all",
        "rejected 0 rows",
        "driver   process 5 on node",
        "since    2026-11-21 11:49:50 UTC, last heard 2026-11-21 11:59:50 UTC",
        "speed    2.0 pairs/s in this start, about 30 minutes left",
    ]


def test_time_left_is_by_the_shards_of_this_start_however_many_rows_are_rejected(tmp_path: Path) -> None:
    found = status.read(output(tmp_path, shards_done_before=1, pairs_done=3), NOW)
    assert found.seconds_left == 3600
    assert found.lines()[-1] == "speed    0.0 pairs/s in this start, about 60 minutes left"
    assert status.read(output(tmp_path, shards_done_before=2), NOW).seconds_left is None


def test_a_dead_job_is_silent(tmp_path: Path) -> None:
    first, *_ = status.read(output(tmp_path), NOW + timedelta(hours=2)).lines()
    assert first.startswith("state    dead: its heartbeat has stopped.")


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
    url = finish_run(f"{tmp_path}/finished", pa.table({"query_id": ["q"]}))
    assert status.main(["--output", url, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["complete"], told["actor_pairs_per_s"]) == (True, 12.5)
    assert (
        "speed    12.5 pairs/s of an actor at work, over all starts"
        in status.read(Directory(url), NOW).lines()
    )


def test_the_speed_of_a_run_that_reused_nearly_all_has_its_caveat(tmp_path: Path) -> None:
    directory = output(tmp_path, state="finished")
    directory.write("summary.json", summary(reused=15).model_dump_json().encode())
    [*_, line] = status.read(directory, NOW).lines()
    assert line == (
        "speed    12.5 pairs/s of an actor at work, over all starts (by only 5 pairs, the others reused: too"
        " few to tell)"
    )
    note = status.read(directory, NOW).actor_pairs_per_s_note
    assert note == "(by only 5 pairs, the others reused: too few to tell)"


def test_a_training_counts_its_last_step_as_it_was(tmp_path: Path) -> None:
    directory = output(tmp_path)
    write_record(directory, RECORD.model_copy(update={"command": "finetune", "pairs": 128}))
    assert "pairs    128 at most" in status.read(directory, NOW).lines()
    ended = summary().model_copy(update={"pairs": 120})
    finish(directory, ended, [], complete=True, manifest=Manifest(folders={}, files={}))
    assert "pairs    120 in all" in status.read(directory, NOW).lines()


def test_rejected_rows_and_shards_given_up_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the summary, which has them all, and of an unfinished job from the markers."""
    directory = output(tmp_path, state="finished")
    ended = summary(rejected={"null_query": 3, "malformed_row": 2}, quarantined=[quarantined(7)])
    directory.write("summary.json", ended.model_dump_json().encode())
    assert status.main(["--output", directory.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "rejected 5 rows (3 null_query, 2 malformed_row)" in lines
    assert "given up 1 shard (quarantined): shard-000007" in lines
    assert status.main(["--output", directory.url, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rejected"] == {"null_query": 3, "malformed_row": 2}
    assert told["quarantined"] == ["shard-000007"]


@pytest.mark.parametrize("state", ["running", "interrupted", "failed"])
def test_an_unfinished_start_counts_what_is_done_by_now(tmp_path: Path, state: str) -> None:
    directory = output(tmp_path, state=state)
    before = summary(rejected={"null_query": 3}, quarantined=[quarantined(0), quarantined(7)])
    directory.write("summary.json", before.model_dump_json().encode())
    job = RECORD.model_copy(update={"shards": 8, "pairs": 8000}).identity
    mark_done(directory, report(0, job=job, rejected={"null_query": 2}))
    mark_done(directory, report(1, job=job, rejected={"null_query": 2, "malformed_row": 4}))
    told = status.read(directory, NOW)
    assert told.rejected == {"malformed_row": 4, "null_query": 4}
    assert told.quarantined == ["shard-000007"]  # the other one is done since


def test_of_other_commands_the_summary_alone_tells(tmp_path: Path) -> None:
    directory = output(tmp_path)
    write_record(directory, RECORD.model_copy(update={"command": "prepare"}))
    assert status.read(directory, NOW).rejected is None
    directory.write("_SUCCESS", b"")
    directory.write("summary.json", b'{"rejected": {"null_query": 1}}')
    told = status.read(directory, NOW)
    assert (told.rejected, told.quarantined) == ({"null_query": 1}, [])


def test_a_marker_without_its_data_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = output(tmp_path, state="interrupted")
    directory.remove_file("run/shard-000001.parquet")
    assert status.main(["--output", directory.url]) == 4
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "shards   1 of 8 done (12.5%)"
    assert "damaged  run/shard-000001.parquet: is missing" in lines


@pytest.mark.parametrize("change", ["gone", "cut", "strange", "flipped"])
def test_damage_of_a_finished_output_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    url = finish_run(f"{tmp_path}/out", *[pa.table({"query_id": ["q"]})] * 2)
    file = tmp_path / "out/run/shard-000001.parquet"
    data = file.read_bytes()
    if change == "gone":
        file.unlink()
    else:
        changed = {"cut": data[:4], "strange": data, "flipped": b"X" + data[1:]}
        (file.with_name("other.parquet") if change == "strange" else file).write_bytes(changed[change])
    told = {
        "gone": "run/shard-000001.parquet: is missing",
        "cut": f"run/shard-000001.parquet: has 4 bytes, and {len(data)} were written",
        "strange": "run/other.parquet: is no file of this output",
        "flipped": "run/shard-000001.parquet: holds other bytes than were written",
    }
    options = ["--check-bytes"] if change == "flipped" else []
    assert status.main(["--output", url, "--json", *options]) == 4
    printed = json.loads(capsys.readouterr().out)
    assert printed["damaged"] == [told[change]]
    assert (printed["complete"], printed["shards_done"]) == (False, 2 if change == "strange" else 1)


@pytest.mark.parametrize("data", [b"", b"{", b'{"state": "running"}'])
def test_a_damaged_heartbeat_leaves_the_rest_to_tell(tmp_path: Path, data: bytes) -> None:
    directory = output(tmp_path)
    directory.write("_manifest/driver/000003.json", data)
    told = status.read(directory, NOW)
    assert told.lines()[:2] == ["state    unknown", "shards   2 of 8 done (25.0%)"]


def test_a_first_stage_tells_the_tasks_of_its_steps(tmp_path: Path) -> None:
    directory = output(tmp_path)
    write_record(directory, RECORD.model_copy(update={"command": "retrieve"}))
    for name in ("read-passages-000000", "read-queries-000000", "embed-minilm-passages-000000", "reuse"):
        report = TaskReport(format_version=FORMAT_VERSION, job="j", name=name, result={}, files={})
        mark_done(directory, report)
    told = status.read(directory, NOW)
    assert told.tasks_done == {"embed": 1, "read": 2}
    assert "tasks    done: 1 embed, 2 read" in told.lines()
    directory.write("_SUCCESS", b"")
    assert status.read(directory, NOW).tasks_done == {}
