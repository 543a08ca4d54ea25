"""Streams of real processes: closed, full, or with a reader that is gone."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pipeline import standard_streams
from pipeline.command import run, Status
from pipeline.errors import TemporaryError

def show():
    standard_streams.show("a line\\n" * 100_000)
    return Status.DIFFERS

def show_summary():
    standard_streams.show_summary("a summary")
    return Status.REJECTS

def fail():
    raise TemporaryError("not yet")

def interrupt():
    raise KeyboardInterrupt

def write_a_file():
    with open("file", "w") as file:
        assert file.fileno() > 2
        print("to standard error", file=sys.stderr, flush=True)
        print("to standard output", flush=True)
    return Status.FINISHED

sys.exit(run(WORK))
"""


def ended(work: str, redirected: str, folder: Path) -> tuple[int, str]:
    """The status, and what a shell's standard output got."""
    program = PROGRAM.replace("WORK", work)
    shell = f'set -o pipefail; "$0" -c "$1" {redirected}'
    command = ["bash", "-c", shell, sys.executable, program]
    root = Path(__file__).parent.parent
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(root)}, stdout=subprocess.PIPE, text=True, check=False
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("work", "redirected", "status", "told"),
    [
        ("fail", "2>/dev/full", 75, ""),
        ("fail", "2>&1 | sleep 0", 75, ""),
        ("fail", "2>&-", 75, ""),
        ("interrupt", "2>/dev/full", 130, ""),
        ("show", "2>&1 >/dev/full", 2, "error: standard output: can't be written: [Errno 28] No space left"),
        ("show", "2>/dev/full >/dev/full", 2, ""),
        ("show", "2>&1 >&-", 1, ""),
        ("show", "| sleep 0", 1, ""),
        (
            "show_summary",
            "2>&1 >/dev/full",
            3,
            "WARNING summary not printed why=\"standard output: can't be written",
        ),
        ("show_summary", ">&- 2>&-", 3, ""),
        ("show_summary", "| sleep 0", 3, ""),
        ("write_a_file", "2>&-", 0, "to standard output"),
        ("write_a_file", "<&- >&- 2>&-", 0, ""),
    ],
)
def test_the_status_is_that_of_the_work(
    tmp_path: Path, work: str, redirected: str, status: int, told: str
) -> None:
    code, shown = ended(work, redirected, tmp_path)
    assert code == status
    assert told in shown
    assert bool(told) == bool(shown)
    assert work != "write_a_file" or not (tmp_path / "file").read_text()


def test_a_command_tells_its_mistake_by_the_status_alone(tmp_path: Path) -> None:
    command = f"{sys.executable} -m pipeline.status --output {tmp_path}/none 2>/dev/full"
    assert subprocess.run(["bash", "-c", command], check=False).returncode == 2
