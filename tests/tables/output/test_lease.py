import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.errors import OutputError, TemporaryError
from pipeline.tables.output import lease as module
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.lease import Heartbeat, is_silent, last_heartbeat, lease


@pytest.fixture(autouse=True)
def fast_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.05)


@pytest.fixture
def output(tmp_path: Path) -> Directory:
    return Directory(str(tmp_path / "out"))


def state(output: Directory) -> tuple[str, str]:
    heartbeat = last_heartbeat(output)
    assert heartbeat is not None
    return heartbeat.state, heartbeat.message


def left_running(output: Directory, **changes: object) -> Heartbeat:
    """What a driver that was killed, or still lives elsewhere, leaves."""
    now = datetime.now(UTC)
    heartbeat = Heartbeat(
        state="running",
        number=7,
        host="elsewhere",
        pid=1,
        started=now,
        time=now,
        shards=2,
        shards_done=1,
        pairs_done=5,
    ).model_copy(update=changes)
    output.write("_manifest/driver/000001.json", heartbeat.model_dump_json().encode())
    return heartbeat


def test_it_tells_how_far_it_is_and_how_it_ended(output: Directory) -> None:
    with lease(output, shards=3, shards_done=1) as held:
        held.add(10)
        deadline = time.monotonic() + 10
        while (heartbeat := last_heartbeat(output)) is None or heartbeat.pairs_done == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert (heartbeat.state, heartbeat.shards, heartbeat.shards_done, heartbeat.pairs_done) == (
            "running",
            3,
            2,
            10,
        )
        assert heartbeat.shards_done_before == 1
        assert heartbeat.pid == os.getpid()
    assert state(output) == ("finished", "")


def test_a_start_after_an_end_takes_the_next_number(output: Directory) -> None:
    with pytest.raises(ZeroDivisionError), lease(output, 1, 0):
        _ = 1 / 0
    assert state(output) == ("failed", "division by zero")
    with pytest.raises(KeyboardInterrupt), lease(output, 1, 0):
        raise KeyboardInterrupt
    assert state(output) == ("interrupted", "")
    assert output.names("_manifest/driver") == {"000001.json", "000002.json"}


def test_of_two_starts_at_once_one_says_so(output: Directory) -> None:
    refused = pytest.raises(TemporaryError, match=rf"another start is writing here: process {os.getpid()} on")
    with lease(output, 1, 0), refused, lease(output, 1, 0):
        pass


def test_of_many_starts_at_the_same_moment_one_wins(output: Directory) -> None:
    together, others_lost = threading.Barrier(8), threading.Semaphore(0)

    def begin(_: int) -> str:
        together.wait()
        try:
            with lease(output, 1, 0):
                for _ in range(7):
                    assert others_lost.acquire(timeout=20)
                return "won"
        except TemporaryError:
            others_lost.release()
            return "lost"

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(begin, range(8))) == ["lost"] * 7 + ["won"]


def test_a_silent_driver_elsewhere_is_waited_for_and_then_replaced(output: Directory) -> None:
    left_running(output)
    start = time.monotonic()
    with lease(output, 1, 0):
        assert time.monotonic() - start > 0.25
    assert state(output) == ("finished", "")


def test_a_process_that_is_gone_is_not_waited_for(output: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
        left_running(output, host=module._host(), pid=gone.pid)
    monkeypatch.setattr(module, "HEARTBEAT_S", 1000)
    with lease(output, 1, 0):
        pass


@pytest.mark.parametrize("error", [PermissionError, ProcessLookupError, FileNotFoundError])
def test_a_process_that_proc_does_not_show_may_be_alive(
    output: Directory, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    def hidden(_: Path) -> str:
        raise error

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as alive:
        heartbeat = left_running(output, host=module._host(), pid=alive.pid)
        assert not module._is_gone(heartbeat)
        monkeypatch.setattr(Path, "read_text", hidden)
        assert not module._is_gone(heartbeat)
        alive.communicate(b"")
    assert module._is_gone(heartbeat)


def test_what_fails_since_another_start_works_there_is_told_so(output: Directory) -> None:
    """As of a process that was stopped while it wrote, and whose unfinished file the other has removed."""

    def write_after_being_replaced() -> None:
        with lease(output, 9, 0):
            output.write("_manifest/driver/000002.json", left_running(output).model_dump_json().encode())
            raise OutputError("run/shard-000002.parquet: can't be written: No such file or directory")

    with pytest.raises(TemporaryError, match="another start has taken over") as caught:
        write_after_being_replaced()
    assert isinstance(caught.value.__cause__, OutputError)


def test_who_was_replaced_stops(output: Directory) -> None:
    def add_until_replaced() -> None:
        with lease(output, 9, 0) as held:
            output.write("_manifest/driver/000002.json", left_running(output).model_dump_json().encode())
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                held.add(1)
                time.sleep(0.01)

    with pytest.raises(TemporaryError, match="another start has taken over"):
        add_until_replaced()
    assert state(output) == ("running", "")


def test_whose_output_was_removed_stops(output: Directory) -> None:
    def add_until_gone() -> None:
        with lease(output, 9, 0) as held:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                output.remove_file("_manifest/driver/000001.json")
                held.add(1)
                time.sleep(0.01)

    with pytest.raises(OutputError, match="the output was removed while the job ran"):
        add_until_gone()


def test_silence_is_told_by_the_time(output: Directory) -> None:
    heartbeat = left_running(output)
    assert not is_silent(output, heartbeat, heartbeat.time + timedelta(seconds=0.1))
    assert is_silent(output, heartbeat, heartbeat.time + timedelta(seconds=1))


@pytest.mark.parametrize("ahead", [timedelta(minutes=-10), timedelta(minutes=10), timedelta(days=1)])
def test_a_driver_whose_clock_differs_is_not_silent(
    output: Directory, ahead: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    heartbeat = left_running(output, time=datetime.now(UTC) + ahead)
    monkeypatch.setattr(time, "sleep", lambda _s: left_running(output, time=heartbeat.time, number=8))
    assert not is_silent(output, heartbeat, datetime.now(UTC))


def test_one_that_was_silent_for_hours_is_looked_at_once(
    output: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    heartbeat = left_running(output)
    monkeypatch.setattr(time, "sleep", lambda _s: pytest.fail("waited"))
    assert is_silent(output, heartbeat, heartbeat.time + timedelta(hours=2))


@pytest.mark.parametrize("store", ["disk", "memory", "s3"])
def test_one_of_many_creates_a_file(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    urls = {"disk": str(tmp_path), "memory": f"memory://{tmp_path.name}"}
    url = request.getfixturevalue("bucket") if store == "s3" else urls[store]
    directories = [Directory(f"{url}/out") for _ in range(6)]
    with ThreadPoolExecutor(1 if store == "memory" else 6) as threads:
        made = list(threads.map(lambda one: one[1].create("a/file", b"%d" % one[0]), enumerate(directories)))
    assert sum(made) == 1
    assert directories[0].read("a/file") == b"%d" % made.index(True)
