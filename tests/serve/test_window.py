"""Limits over any minute."""

import pytest

from serve.window import Window


def test_no_minute_has_more_than_a_minutes_share() -> None:
    clock = [0.0]
    window = Window(60, lambda: clock[0])
    allowed: list[float] = []
    while clock[0] < 200:
        if not window.wait_s(1):
            window.take(1)
            allowed.append(clock[0])
        clock[0] += 0.125
    most = max(sum(begin <= at < begin + 60 for at in allowed) for begin in allowed)
    assert most == 60
    assert len(allowed) >= 60 * 4 - 30  # and in the long run as much as it says


def test_it_tells_when_there_is_room_again() -> None:
    clock = [1000.0]
    window = Window(60, lambda: clock[0])
    window.take(50)
    clock[0] = 1010.0
    window.take(10)
    assert window.wait_s(1) == pytest.approx(50, abs=0.1)
    assert window.wait_s(50) == pytest.approx(50, abs=0.1)
    assert window.wait_s(51) == pytest.approx(60, abs=0.1)
    clock[0] += window.wait_s(51)
    assert window.wait_s(60) == 0


def test_a_window_stays_small_however_many_ask() -> None:
    clock = [0.0]
    window = Window(10**9, lambda: clock[0])
    for _ in range(20_000):
        window.take(1)
        clock[0] += 0.001
    assert len(window._taken) <= 401
    assert window.wait_s(10**9 - 20_000) == 0
