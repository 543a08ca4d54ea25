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
        server = int(running.stdout.readline())
        running.send_signal(signal.SIGTERM)
        running.wait(30)
    ends(server)


def ends(pid: int) -> None:
    deadline = time.monotonic() + 10
    # One that nobody waited for is a zombie.
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


ENDS = """
import sys
from benchmarks.servers import process
port, server = sys.argv[1:]
with process([sys.executable, server, port], {}, f"http://127.0.0.1:{port}/"):
    pass
"""
SERVER = """
import http.server, os, subprocess, sys
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
open(__file__ + ".child", "w").write(str(child.pid))
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)
try:
    server.serve_forever()
except KeyboardInterrupt:
    open(__file__ + ".end", "w").write("interrupted")
"""


def test_in_the_background_of_a_shell_the_server_is_interrupted_too(tmp_path: Path) -> None:
    """Such a job ignores SIGINT. What the server started goes with it."""
    server = tmp_path / "server.py"
    server.write_text(SERVER)
    port = str(free_port())
    ignoring = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        subprocess.run([sys.executable, "-c", ENDS, port, str(server)], check=True, timeout=60)
    finally:
        signal.signal(signal.SIGINT, ignoring)
    assert (tmp_path / "server.py.end").read_text() == "interrupted"
    ends(int((tmp_path / "server.py.child").read_text()))


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
