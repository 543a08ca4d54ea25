"""What the commands share."""

import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest

from pipeline import command
from pipeline.command import LOADING, Status, run, tell_loading
from pipeline.errors import ConfigError, InputError, ModelError, OutputError, RayrankError, TemporaryError


def test_a_start_that_takes_long_says_why_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_told", Event())
    for _ in range(2):
        tell_loading(after_s=0).join()
    told = capsys.readouterr().err
    assert told.endswith(f"INFO {LOADING}\n")
    assert told.count(LOADING) == 1


def test_a_process_that_gets_no_memory_or_threads_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    def takes_all() -> Status:
        bytearray(1 << 62)
        raise AssertionError

    assert run(takes_all) == Status.MISTAKE
    assert "error: this process got no more memory or threads (MemoryError): give" in capsys.readouterr().err


def test_threads_that_are_refused_are_told_and_other_errors_stay_bugs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(words: str) -> Status:
        raise RuntimeError(words)

    assert run(lambda: failing("can't start new thread")) == Status.MISTAKE
    assert "memory or threads (can't start new thread): give" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="a bug"):
        run(lambda: failing("a bug"))


def test_a_quick_one_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    timer = tell_loading(after_s=600)
    timer.cancel()
    timer.join()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("kind", "status"),
    [(ConfigError, 2), (InputError, 2), (OutputError, 2), (ModelError, 2), (TemporaryError, 75)],
)
def test_an_error_is_one_message_and_tells_whether_to_try_again(
    kind: type[RayrankError], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> Status:
        raise kind("what is wrong")

    assert run(work) == status
    assert capsys.readouterr().err == "error: what is wrong\n"


_IN_ONE_PROCESS = """
import sys
from importlib import import_module

for command in sys.argv[2:]:
    arguments = ["--mteb", "Task"] if command == "evaluate" else []
    status = import_module(f"pipeline.{command}").main([*arguments, "--config", sys.argv[1]])
    print(command, status.name, "torch" in sys.modules)
"""


def test_a_mistake_in_the_config_is_told_before_torch_is_loaded(tmp_path: Path) -> None:
    """It takes up to 20 s."""
    config = tmp_path / "job.yaml"
    config.write_text("a_field_of_no_command: 1\n")
    commands = ("retrieve", "rerank", "prepare", "mine", "finetune", "verify", "evaluate")
    call = [sys.executable, "-c", _IN_ONE_PROCESS, str(config), *commands]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{name} MISTAKE False" for name in commands]
    assert done.stderr.count("a_field_of_no_command: there is no such field") == len(commands)
