"""What a replica thinks of how long a request will wait, and what it refuses for that."""

import asyncio
import threading
from dataclasses import replace
from typing import Any, cast

import pytest

from pipeline.scoring import Limits
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.results import Scored
from serve.batcher import Batcher, BatchReport
from serve.replica import Replica
from serve.work import Refused, Scores
from tests.conftest import MINILM, TINY
from tests.serve.test_batcher import Device
from tests.serve.test_batcher import run as run_batcher
from tests.serve.test_replica import LONG, run, scored, work_of


def test_who_would_wait_for_the_device_or_the_tokenizer_is_refused_unless_it_was_accepted() -> None:
    async def test(replica: Replica) -> None:
        hi = work_of([("q", "hi")], timeout_s=30.0)
        for queue, name in ((replica._batcher._announced, "ahead"), (replica, "_characters")):
            setattr(queue, name, 10**12)
            refused = await replica.score(hi)
            assert isinstance(refused, Refused)
            # Not `timeout`: it could come again.
            assert refused.kind == "overloaded", name
            assert refused.retry_after_s
            assert replica.full() == refused
            setattr(queue, name, 0)
            assert replica.full() is None
        replica._batcher._announced.ahead = 10**12
        assert isinstance(await replica.score(replace(hi, timeout_s=None, accepted=True)), Scores)
        replica._batcher._announced.ahead = 0

    run(TINY, test)


def test_others_are_not_refused_for_what_is_cut_of_long_texts() -> None:
    """No more is announced of a pair than the model may read of it."""
    pairs = [("q" * 8000, "river " * 3000), ("q", "river"), ("q", "river " * 3000)]

    async def announced(replica: Replica, **limits: Any) -> int:
        seen, scorer = list[float](), cast("Any", replica._scorer)
        encode = scorer.encode

        def noting(some: list[tuple[str, str]], limits: Limits | None = None) -> EncodedPairs:
            seen.append(replica._batcher.waiting_tokens)
            encoded: EncodedPairs = encode(some, limits)
            return encoded

        scorer.encode = noting
        await scored(replica, work_of(pairs, limits=Limits(**limits)))
        scorer.encode = encode
        return int(seen[0])

    async def cross_encoder(replica: Replica) -> None:
        assert await announced(replica) == 2 * 512 + 1
        assert await announced(replica, max_length=64) == 2 * 64 + 1
        assert await announced(replica, passage_max_length=64) == 512 + 1 + 64

    async def embedding_model(replica: Replica) -> None:
        assert await announced(replica, max_length=32) == 2 * 32 + 1 + 32

    async def windows(replica: Replica) -> None:
        assert await announced(replica) > 9000

    run(TINY, cross_encoder)
    run(MINILM, embedding_model)
    run(TINY, windows, long_passages={"strategy": "max"}, query_max_length=64)


def test_equal_pairs_that_wait_count_once_tokenized_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is refused because many ask the same at once."""
    held = threading.Event()

    async def test(replica: Replica) -> None:
        batcher = replica._batcher
        forward = batcher._forward

        def holding(pairs: EncodedPairs) -> Scored:
            assert held.wait(20)
            return forward(pairs)

        def waiting() -> int:
            return batcher._announced.total + batcher._queue.tokens.total

        monkeypatch.setattr(batcher, "_forward", holding)
        first = asyncio.create_task(scored(replica, work_of([("q", "on the device")])))
        while not batcher._on_device:
            await asyncio.sleep(0.001)
        pairs = [("q", "river " * 60), ("q", "panda " * 60)]
        works = [work_of(pairs[: 1 + number % 2]) for number in range(20)]
        asked = [asyncio.create_task(scored(replica, work)) for work in works]
        await asyncio.sleep(0)
        assert waiting() == 2 * ((1 + 6 * 60) // 4)
        while len(batcher._queue) < len(works):
            await asyncio.sleep(0.001)
        tokens = waiting()
        assert 0 < tokens <= 2 * 512
        again = asyncio.create_task(scored(replica, work_of(pairs)))
        await asyncio.sleep(0)
        assert waiting() == tokens
        otherwise = asyncio.create_task(scored(replica, work_of(pairs, limits=Limits(max_length=16))))
        await asyncio.sleep(0)
        assert waiting() == tokens + 2 * 16
        while len(batcher._queue) < len(works) + 2:
            await asyncio.sleep(0.001)
        held.set()
        outcomes = await asyncio.gather(first, again, otherwise, *asked)
        assert {scores.scores.tolist()[0] for scores in outcomes[3:]} == {outcomes[1].scores.tolist()[0]}

    reports = run(TINY, test)
    assert [report.pairs for report in reports] == [1, 30 + 2 + 2]


def test_what_waits_for_the_tokenizer_is_work_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(replica: Replica) -> None:
        go_on, encode = threading.Event(), replica._scorer.encode

        def held(some: list[tuple[str, str]], limits: Limits | None = None) -> EncodedPairs:
            assert go_on.wait(20)
            return encode(some, limits)

        monkeypatch.setattr(replica._scorer, "encode", held)
        replica._characters_speed.a_second = 1000
        asked = [asyncio.create_task(replica.score(work_of([("q", LONG)]))) for _ in range(40)]
        for _ in range(2):
            await asyncio.sleep(0)
        waiting_s = replica.waiting_s
        go_on.set()
        assert 60 < waiting_s < 63, "what would wait longer was refused"
        kinds = [outcome.kind for outcome in await asyncio.gather(*asked) if isinstance(outcome, Refused)]
        assert kinds == ["overloaded"] * 10
        assert replica.waiting_s == 0

    run(TINY, test)


def test_a_pair_that_two_have_announced_counts_until_the_last_leaves() -> None:
    async def test(batcher: Batcher, _device: Device, _reports: list[BatchReport]) -> None:
        first, second = batcher.announce({"both": 50, "one": 200}), batcher.announce({"both": 50})
        first.__enter__()
        second.__enter__()
        assert batcher.waiting_tokens == 250
        first.__exit__(None, None, None)
        assert batcher.waiting_tokens == 50
        second.__exit__(None, None, None)
        assert batcher.waiting_tokens == 0

    run_batcher(test)
