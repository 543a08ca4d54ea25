"""What the commands share."""

import pytest

from pipeline.command import LOADING, tell_loading


def test_a_start_that_takes_long_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    tell_loading(after_s=0).join()
    assert capsys.readouterr().err.endswith(f"INFO {LOADING}\n")


def test_a_quick_one_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    timer = tell_loading(after_s=600)
    timer.cancel()
    timer.join()
    assert capsys.readouterr().err == ""
