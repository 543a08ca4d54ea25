"""One model that serves requests, without HTTP and without Ray."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from pipeline.errors import DeviceError, ModelError, ScoringError
from pipeline.scoring import Limits, ScorerConfig
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.results import Scored
from serve.batcher import BatchReport
from serve.replica import _TURN_CHARACTERS, Replica, _turns
from serve.work import Refused, Scores, Work
from tests.conftest import MINILM, TINY, GoldenCase

LONG = "a" * 2000


def run(
    model: str, test: Callable[[Replica], Coroutine[Any, Any, None]], **options: Any
) -> list[BatchReport]:
    reports: list[BatchReport] = []

    async def body() -> None:
        config = ScorerConfig.model_validate({"model": model, "device": "cpu"} | options)
        replica = Replica(config, 60.0, reports.append)
        await replica.start()
        reports.clear()
        await test(replica)
        await replica.close()

    asyncio.run(asyncio.wait_for(body(), 60))
    return reports


def work_of(pairs: list[tuple[str, str]], **options: Any) -> Work:
    return Work([query for query, _ in pairs], [passage for _, passage in pairs], **options)


async def scored(replica: Replica, work: Work) -> Scores:
    outcome = await replica.score(work)
    assert isinstance(outcome, Scores), outcome
    return outcome


def test_scores_are_the_published_ones(golden: GoldenCase) -> None:
    """Among other requests, and each cutoff layer by its number."""

    async def test(replica: Replica) -> None:
        several = golden.scores.ndim > 1
        layers = list(golden.options["cutoff_layers"]) if several else [None]
        normalize = bool(golden.options.get("normalize"))
        tasks = [
            replica.score(work_of(golden.pairs, cutoff_layer=layer, normalize=normalize))
            for layer in layers * 3
        ]
        expected = golden.scores.T if several else [golden.scores]
        for outcome, wanted in zip(await asyncio.gather(*tasks), [*expected] * 3, strict=True):
            assert isinstance(outcome, Scores), outcome
            np.testing.assert_allclose(outcome.scores, wanted, atol=1e-4)

    run(golden.checkpoint, test, **golden.options)


def test_equal_pairs_of_a_request_that_goes_in_chunks_score_alike() -> None:
    texts = ["hi", "The giant panda is a bear. " * 9, "bamboo " * 20]

    async def test(replica: Replica) -> None:
        outcome = await scored(replica, work_of([("what is a panda?", text) for text in texts * 100]))
        assert outcome.tokens.sum() > 4096 + 64
        assert [len(set(outcome.scores[index::3])) for index in range(3)] == [1, 1, 1]
        alone = await scored(replica, work_of([("what is a panda?", text) for text in texts]))
        np.testing.assert_allclose(outcome.scores[:3], alone.scores, atol=1e-5)
        assert (outcome.tokens[:3] == alone.tokens).all()

    reports = run(TINY, test, max_batch_tokens=64)
    assert sum(report.pairs for report in reports) == 6


@pytest.mark.parametrize("model", [TINY, MINILM])
def test_a_request_of_many_texts_lets_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """The scores are those that it has in one go, and a text that does not fit is told by its place."""
    texts = [f"{'river ' * count}bank" for count in range(40)]
    pairs = [("what is a panda?", text) for text in [*texts, *texts]]
    turns = list[int]()

    async def test(replica: Replica) -> None:
        expected = await scored(replica, work_of(pairs, spans=True))
        monkeypatch.setattr("serve.replica._TURN_CHARACTERS", 500)
        encode = replica._scorer.encode

        def noting(some: list[tuple[str, str]], limits: Limits | None = None) -> EncodedPairs:
            turns.append(len(some))
            return encode(some, limits)

        monkeypatch.setattr(replica._scorer, "encode", noting)
        large = asyncio.create_task(scored(replica, work_of(pairs, spans=True)))
        while not turns:
            await asyncio.sleep(0)
        await scored(replica, work_of(pairs[:1]))
        turn = turns.index(1)
        assert 0 < turn <= 2, "it had at most the turn that went, and the one that had begun to wait"
        found = await large
        assert sum(turns) == len(pairs) + 1
        assert len(turns) > 10
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        np.testing.assert_array_equal(found.scores[:40], found.scores[40:])
        assert found.spans == expected.spans
        assert (found.tokens == expected.tokens).all()

    run(model, test, max_length=32)

    async def too_long(replica: Replica) -> None:
        outcome = await replica.score(work_of([*pairs, ("q", "river " * 900), *pairs]))
        assert isinstance(outcome, Refused)
        assert outcome.pair == 80
        assert outcome.message.startswith("pair 80: ")

    run(model, too_long, truncation="error")


def test_a_turn_counts_each_of_its_queries_once() -> None:
    half = "x" * (_TURN_CHARACTERS // 2 - 1)
    assert len(list(_turns(work_of([(half, "passage")] * 9)))) == 1
    assert len(list(_turns(work_of([(f"{at}{half}", "p") for at in range(9)])))) == 9
    assert len(list(_turns(work_of([(half, half)] * 3)))) == 3
    # A query that fills a turn alone is tokenized in each: there are few.
    longer, passage = "x" * 2 * _TURN_CHARACTERS, "p" * 1000
    turns = list(_turns(work_of([(longer, passage)] * 1000)))
    assert len(turns) == 5
    assert [turns[0].start, *(turn.stop for turn in turns)] == [0, 200, 400, 600, 800, 1000]
    assert len(list(_turns(work_of([(f"{at}{longer}", "p") for at in range(4)])))) == 4


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "past its deadline"])
def test_what_nobody_waits_for_is_not_tokenized(monkeypatch: pytest.MonkeyPatch, cancelled: bool) -> None:
    """Of a request in turns the next ones, and one that waits for its first turn."""
    monkeypatch.setattr("serve.replica._TURN_CHARACTERS", 10)
    turns, go_on = list[str](), threading.Event()

    async def test(replica: Replica) -> None:
        encode = replica._scorer.encode

        def held(some: list[tuple[str, str]], limits: Limits | None = None) -> EncodedPairs:
            turns.extend(passage for _, passage in some)
            assert go_on.wait(20)
            return encode(some, limits)

        monkeypatch.setattr(replica._scorer, "encode", held)
        timeout_s = None if cancelled else 0.05
        large = work_of([("q", f"passage {at}") for at in range(9)], timeout_s=timeout_s)
        begun = asyncio.create_task(replica.score(large))
        while not turns:
            await asyncio.sleep(0)
        waits = asyncio.create_task(replica.score(work_of([("q", "late")], timeout_s=timeout_s)))
        await asyncio.sleep(0)
        if cancelled:
            begun.cancel()
            waits.cancel()
        for outcome in await asyncio.gather(begun, waits, return_exceptions=True):
            if cancelled:
                assert isinstance(outcome, asyncio.CancelledError)
            else:
                assert outcome == Refused("timeout", "not done within the time that it may take")
        go_on.set()
        assert len((await scored(replica, work_of([("q", "next")]))).scores) == 1
        assert turns == ["passage 0", "next"]

    run(TINY, test)


def test_a_pair_that_cant_be_scored_is_told_by_its_place_in_the_request() -> None:
    def fail(_: EncodedPairs) -> Scored:
        raise ScoringError(1, "why")

    async def test(replica: Replica) -> None:
        replica._batcher._forward = fail
        outcome = await replica.score(work_of([("q", "same"), ("q", "same"), ("q", "other")]))
        assert outcome == Refused("unscorable", "pair 2: why", pair=2)

    run(TINY, test)


def test_the_sigmoid_is_each_requests_choice_and_not_for_cosines() -> None:
    pairs = [("what is a panda?", "The giant panda is a bear.")]

    async def logits(replica: Replica) -> None:
        raw, probability = [
            (await scored(replica, work_of(pairs, normalize=flag))).scores[0] for flag in (False, True)
        ]
        assert probability == pytest.approx(1 / (1 + np.exp(-raw)), abs=1e-6)
        assert replica.info().normalizes

    async def cosines(replica: Replica) -> None:
        one, other = [await scored(replica, work_of(pairs, normalize=flag)) for flag in (False, True)]
        assert one.scores == other.scores
        assert not one.normalizes
        assert not replica.info().normalizes

    run(TINY, logits, normalize=True)
    run(MINILM, cosines)


def test_what_was_cut_and_how_long_it_took_is_told() -> None:
    async def test(replica: Replica) -> None:
        outcome = await scored(replica, work_of([("q", LONG), ("q", "hi")], spans=True))
        assert outcome.passage_cut[0] > 1000
        assert outcome.passage_cut[1] == 0
        assert outcome.spans is not None
        assert outcome.spans[1] == (0, 2)
        assert outcome.spans[0][0] == 0
        assert 300 < outcome.spans[0][1] < 600
        assert outcome.tokens[0] == 512
        assert min(outcome.tokenization_s, outcome.queue_s, outcome.inference_s) > 0

    reports = run(TINY, test)
    assert sum(report.pairs for report in reports) == 2


@pytest.mark.parametrize(
    ("work", "kind"),
    [
        (work_of([("q", LONG)], limits=Limits(truncation="error")), "too_long"),
        (work_of([("q", "hi")], limits=Limits(max_length=10_000)), "too_long"),
    ],
)
def test_what_does_not_fit_is_refused(work: Work, kind: str) -> None:
    async def test(replica: Replica) -> None:
        refused = await replica.score(work)
        assert isinstance(refused, Refused)
        assert refused.kind == kind
        assert "aaaa" not in refused.message
        assert len((await scored(replica, work_of([("q", "hi")]))).scores) == 1

    run(TINY, test)


def test_work_that_would_not_begin_in_time_is_not_begun() -> None:
    async def test(replica: Replica) -> None:
        large = asyncio.create_task(replica.score(work_of([("q", LONG)] * 200)))
        while not replica.waiting_s:
            await asyncio.sleep(0)
        refused = await replica.score(work_of([("q", "hi")], timeout_s=1e-9))
        assert isinstance(refused, Refused)
        assert refused.kind == "timeout"
        large.cancel()
        await asyncio.gather(large, return_exceptions=True)

    run(TINY, test)


def test_a_replica_whose_card_fails_is_sick() -> None:
    """So that Serve puts another in its place: the card answers nobody any more."""

    async def test(replica: Replica) -> None:
        await scored(replica, work_of([("a", "b")]))
        replica.check()
        model: Any = replica._scorer.model
        device = model._loop.device
        device.torch = torch.device("cuda")
        device.put = Mock(side_effect=torch.AcceleratorError("CUDA error: uncorrectable ECC error"))
        with pytest.raises(DeviceError, match="the device cuda failed on pair 0: CUDA error: uncorrectable"):
            await replica.score(work_of([("a", "b")]))
        with pytest.raises(RuntimeError, match="the device failed"):
            replica.check()

    run(TINY, test)


def test_a_checkpoint_that_is_not_there_is_told_before_anything_loads() -> None:
    with pytest.raises(ModelError, match="no such directory"):
        Replica(ScorerConfig(model="/nowhere"), 1.0, lambda _report: None)
