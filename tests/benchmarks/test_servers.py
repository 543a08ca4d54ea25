import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.serve import parse_arguments
from tests.ports import free_port

SERVES = """
import sys, time
from benchmarks.servers import process
port = sys.argv[1]
with process([sys.executable, "-m", "http.server", port], {}, f"http://127.0.0.1:{port}/") as server:
    print(server.pid, flush=True)
    time.sleep(60)
"""


def test_sigterm_ends_the_server_too(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVES, str(free_port())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        assert running.stdout is not None
        server = psutil.Process(int(running.stdout.readline()))
        running.send_signal(signal.SIGTERM)
        running.wait(30)
    deadline = time.monotonic() + 10
    while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("seconds", ["10", "3"])
def test_a_load_too_short_to_count_anything_is_refused(
    tmp_path: Path, seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("docs.jsonl", "queries.jsonl", "run.bm25.txt"):
        (tmp_path / name).touch()
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(["--collection", str(tmp_path), "--seconds", seconds])
    assert "--seconds: needs more than 10" in capsys.readouterr().err
    assert parse_arguments(["--collection", str(tmp_path)]).seconds == 60
