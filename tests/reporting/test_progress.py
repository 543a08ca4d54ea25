import io
from itertools import count

import pytest

from pipeline.reporting.progress import Progress
from tests.reporting.reports import quarantined, report


def planned(shards: int) -> dict[str, int]:
    """Of shards of 20 pairs."""
    return {f"shard-{number:06d}": 20 for number in range(shards)}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_how_far_the_job_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    terminal, seconds = Terminal(), iter((0, 0, 10, 20, 30))
    progress = Progress(planned(4), actors=2, stream=terminal, clock=lambda: next(seconds))
    assert terminal.getvalue().startswith("\r0/4 shards  unknown left")
    progress.add(report())
    line = "1/4 shards  0:00:30 left  20/80 pairs  2.0 pairs/s  200 tokens/s  device 20%"
    assert terminal.getvalue().split("\r")[-1] == f"{line}\033[K"
    progress.add(report(1, pairs=2, rejected={"null_query": 18}))
    progress.add(quarantined(pairs=20))
    last = "2/4 shards  0:00:15 left  40/60 pairs  0.7 pairs/s  133 tokens/s  device 13%"
    assert terminal.getvalue().split("\r")[-1] == f"{last}  18 rejected  1 shards given up\033[K"
    progress.close()
    assert terminal.getvalue().endswith("\n")


def test_time_left_is_that_of_shards_however_many_rows_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there are more of them than pairs were planned: beyond input.top_k, say."""
    monkeypatch.setenv("COLUMNS", "200")
    terminal, seconds = Terminal(), iter((0, 0, 60, 120, 180))
    progress = Progress(planned(10), actors=1, stream=terminal, clock=lambda: next(seconds))
    for number in range(3):
        progress.add(report(number, pairs=2, rejected={"null_passage": 198}))
        assert f"\r{number + 1}/10 shards  0:0{9 - number}:00 left" in terminal.getvalue()
        assert f"{20 * (number + 1)}/200 pairs" in terminal.getvalue()


def test_levels_of_a_cascade_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    terminal = Terminal()
    progress = Progress(planned(2), actors=2, stream=terminal)
    for index in range(2):
        progress.add(report(index, levels=[{"pairs": 20}, {"pairs": 6}]))
    assert terminal.getvalue().endswith("  levels 40/12\033[K")


def test_a_line_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    terminal = Terminal()
    Progress(planned(1), actors=1, stream=terminal).add(report())
    assert all(len(line.removesuffix("\033[K")) < 30 for line in terminal.getvalue().split("\r"))


def test_a_log_hears_of_it_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rayrank")
    pipe, seconds = io.StringIO(), count(0, 25)
    progress = Progress(planned(10), actors=1, stream=pipe, clock=lambda: next(seconds))
    for index in range(6):
        progress.add(report(index))
    progress.close()
    first, second = caplog.messages
    assert first == (
        "progress shards=2/10 left=0:05:00 pairs=40/200 pairs_per_s=0.5 tokens_per_s=53 device_share=11%"
        " reused=0 rejected=0 quarantined=0"
    )
    assert second.startswith("progress shards=5/10 ")
    assert pipe.getvalue() == ""
