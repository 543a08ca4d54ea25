"""What the commands share."""

import pytest

from pipeline.command import LOADING, Status, run, tell_loading
from pipeline.errors import ConfigError, InputError, ModelError, OutputError, RayrankError, TemporaryError


def test_a_start_that_takes_long_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    tell_loading(after_s=0).join()
    assert capsys.readouterr().err.endswith(f"INFO {LOADING}\n")


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
