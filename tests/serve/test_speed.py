"""What a batcher thinks of its device's speed, on a device and a clock that the test holds."""

import asyncio
from types import SimpleNamespace

import pytest

from pipeline.scoring.encoding import EncodedPairs
from serve.batcher import Batcher, BatchReport
from serve.speed import Speed
from tests.serve.test_batcher import Device, ask, encoded, run, until


def test_the_first_work_is_the_first_estimate() -> None:
    speed = Speed()
    speed.note(10, 2, full_load=100)
    assert speed.a_second == 5


def test_small_work_that_is_mostly_overhead_does_not_lower_the_speed() -> None:
    speed = Speed()
    speed.note(1000, 1, full_load=1000)
    for _ in range(100):
        speed.note(1, 0.01, full_load=1000)
    assert speed.a_second == 1000


def test_small_work_that_is_fast_raises_the_speed() -> None:
    speed = Speed()
    speed.note(1000, 1, full_load=1000)
    speed.note(100, 0.05, full_load=1000)
    assert speed.a_second == 1200


def test_a_device_that_becomes_slow_is_seen() -> None:
    for units in (1000, 300):
        speed = Speed()
        speed.note(1000, 1, full_load=1000)
        for _ in range(100):
            speed.note(units, units / 100, full_load=1000)
        assert round(speed.a_second) == 100, units


def test_one_slow_load_is_not_the_speed() -> None:
    speed = Speed()
    speed.note(1000, 1, full_load=1000)
    speed.note(1000, 100, full_load=1000)
    assert speed.a_second > 750


def test_the_speed_is_that_of_what_goes_through_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither small requests, mostly overhead, nor equal pairs of several requests change the wait."""
    now = 0.0
    monkeypatch.setattr("serve.batcher.time", SimpleNamespace(perf_counter=lambda: now))

    async def test(batcher: Batcher, device: Device, _reports: list[BatchReport]) -> None:
        async def trip(seconds: float, *requests: EncodedPairs) -> float:
            """The tokens on the device meanwhile."""
            nonlocal now
            begun = len(device.batches)
            device.open.clear()
            tasks = [asyncio.create_task(ask(batcher, request)) for request in requests]
            await until(lambda: len(device.batches) > begun)
            tokens = batcher.waiting_tokens
            now += seconds
            device.open.set()
            await asyncio.gather(*tasks)
            return tokens

        await trip(1, encoded(100))
        for _ in range(20):
            await trip(0.5, encoded(1))
        with batcher.announce({"pair": 100}):
            assert batcher.wait_s == 1
        assert await trip(1, encoded(100), encoded(100)) == 100
        assert len(device.batches[-1]) == 2
        with batcher.announce({"pair": 100}):
            assert batcher.wait_s == 1

    run(test)
