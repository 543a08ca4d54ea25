"""A model of several scorers. Most tests score with a stand-in; one asks real models over HTTP."""

import asyncio
from typing import Any

import httpx2
import numpy as np
import pytest

from pipeline.errors import ConfigError
from serve.app import build_app
from serve.cascade import Cascade
from serve.config import ModelConfig, ServeConfig
from serve.work import ModelInfo, Refused, Scores, Work
from tests.conftest import DATA, TINY
from tests.serve.dialects.reference import PASSAGES, QUERY, scorer
from tests.serve.local import serving

GEMMA = str(DATA / "tiny-bge-reranker-v2-gemma")
LEVELS: list[dict[str, Any]] = [{"scorer": {"model": "a"}, "keep": 2}, {"scorer": {"model": "b"}}]


class StandIn:
    """Scores a passage `x,y` by the number at its level's place."""

    def __init__(self, level: int) -> None:
        self.level = level
        self.seen: list[Work] = []
        self.refusal: Refused | None = None

    async def score(self, work: Work) -> Scores | Refused:
        self.seen.append(work)
        for pair, passage in enumerate(work.passages):
            if passage.split(",")[self.level] == "bad":
                return Refused("unscorable", f"pair {pair}: no score", pair=pair)
        raw = np.array([float(passage.split(",")[self.level]) for passage in work.passages], np.float32)
        ones = np.ones(len(raw), np.int32)
        spans = [(self.level, 9)] * len(raw) if work.spans else None
        cut = self.level * ones
        return Scores(raw, raw, True, ones.astype(np.int64), cut, cut, cut, spans, 0.1, 0.2, 0.3)

    async def info(self) -> ModelInfo | Refused:
        if self.refusal is not None:
            return self.refusal
        raise NotImplementedError

    async def full(self) -> Refused | None:
        return self.refusal

    async def check(self) -> None:
        if self.level == 0:
            raise RuntimeError("no replica")


def score(
    passages: list[str], levels: list[dict[str, Any]] = LEVELS, **work: Any
) -> tuple[Any, list[StandIn]]:
    models = [StandIn(level) for level in range(len(levels))]
    cascade = Cascade(ModelConfig.model_validate({"levels": levels}), models)
    queries = work.pop("queries", ["q"] * len(passages))
    return asyncio.run(cascade.score(Work(queries, passages, **work))), models


def test_a_level_that_is_full_is_told_before_those_before_it_work() -> None:
    models = [StandIn(level) for level in range(2)]
    models[1].refusal = Refused("overloaded", "full", 3.0)
    cascade = Cascade(ModelConfig.model_validate({"levels": LEVELS}), models)
    outcome = asyncio.run(cascade.score(Work(["q"], ["1,2"])))
    assert outcome == Refused("overloaded", "levels.1: full", 3.0)
    assert not models[0].seen
    # One that has no replica now would be started by the question, and is not waited for.
    scaled = {"levels": [LEVELS[0], LEVELS[1] | {"replicas": {"min": 0}}]}
    cascade = Cascade(ModelConfig.model_validate(scaled), models)
    assert isinstance(asyncio.run(cascade.score(Work(["q"], ["1,2"]))), Scores)


def test_a_level_without_replicas_is_told_where_the_cascade_is_asked_about() -> None:
    models = [StandIn(level) for level in range(2)]
    models[0].refusal = Refused("unavailable", "none", 1.0)
    cascade = Cascade(ModelConfig.model_validate({"levels": LEVELS}), models)
    assert asyncio.run(cascade.info()) == Refused("unavailable", "levels.0: none", 1.0)


def test_each_level_scores_what_the_one_before_kept() -> None:
    scores, (first, second) = score(["1,9", "3,1", "2,2", "0,8"], spans=True)
    assert first.seen[0].passages == ["1,9", "3,1", "2,2", "0,8"]
    assert second.seen[0].passages == ["3,1", "2,2"]
    # 2,2 is the best of what the second level saw; the others stand below as the first one had them.
    assert (1 / scores.raw).round().tolist() == [3, 2, 1, 4]
    assert scores.scores.tolist() == scores.raw.tolist()
    assert scores.tokens.tolist() == [1, 2, 2, 1]
    assert scores.passage_cut.tolist() == [0, 1, 1, 0]
    assert scores.spans == [(0, 9), (1, 9), (1, 9), (0, 9)]
    assert (scores.tokenization_s, scores.queue_s, scores.inference_s) == pytest.approx((0.2, 0.4, 0.6))
    assert [level.places.tolist() for level in scores.levels] == [[0, 1, 2, 3], [1, 2]]
    assert [level.ranks.tolist() for level in scores.levels] == [[3, 1, 2, 4], [2, 1]]


def test_each_query_keeps_its_own_best_and_equal_ones_keep_their_order() -> None:
    passages = ["1,0", "5,5", "1,0", "4,6", "1,0", "3,7"]
    scores, (_, second) = score(passages, queries=["a", "b"] * 3)
    assert list(zip(second.seen[0].queries, second.seen[0].passages, strict=True)) == [
        ("a", "1,0"), ("a", "1,0"), ("b", "5,5"), ("b", "4,6"),
    ]  # fmt: skip
    assert (1 / scores.raw).round().tolist() == [1, 2, 2, 1, 3, 3]


def test_levels_fuse_as_in_a_job() -> None:
    fuse = {"method": "weighted", "weights": [1, 0]}
    scores, _ = score(["1,9", "3,1", "2,2"], [LEVELS[0], LEVELS[1] | {"fuse": fuse}])
    assert (1 / scores.raw).round().tolist() == [3, 1, 2]
    # By reciprocal ranks: third and first, first and third, second and second. Equal ones keep their order.
    levels = [LEVELS[0] | {"keep": 3}, LEVELS[1] | {"fuse": {"method": "rrf", "k": 1}}]
    scores, _ = score(["1,9", "3,1", "2,2", "0,0"], levels)
    assert (1 / scores.raw).round().tolist() == [1, 2, 3, 4]


def test_a_level_that_refuses_is_named_and_the_pair_is_the_requests() -> None:
    refused, _ = score(["1,9", "3,1", "2,bad"])
    assert refused == Refused("unscorable", "levels.1: pair 2: no score", pair=2)


def test_time_that_a_level_took_is_gone_for_the_next() -> None:
    _, (first, second) = score(["1,1"], timeout_s=5.0)
    assert 5.0 >= (first.seen[0].timeout_s or 0) > (second.seen[0].timeout_s or 9) > 4.0


def test_over_http_it_says_what_each_level_did() -> None:
    levels = [{"scorer": {"model": TINY}, "keep": 3}, {"scorer": {"model": GEMMA}}]
    with (
        serving({"both": {"levels": levels}, "tiny": {"model": TINY}}) as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        body = client.post("/rank", json={"query": QUERY, "passages": PASSAGES}).json()
        assert body["model"] == "both"
        assert [level["passages"] for level in body["levels"]] == [len(PASSAGES), 3]
        assert body["tokens"] == sum(level["tokens"] for level in body["levels"])
        ranked = body["ranked"]
        assert [entry["score"] for entry in ranked] == pytest.approx([1 / rank for rank in range(1, 7)])
        first = scorer().score([(QUERY, passage) for passage in PASSAGES])
        second = scorer(model=GEMMA).score([(QUERY, PASSAGES[entry["index"]]) for entry in ranked[:3]])
        assert [entry["levels"][0]["score"] for entry in ranked] == pytest.approx(
            [float(first[entry["index"]]) for entry in ranked], abs=1e-5
        )
        assert [entry["levels"][1]["score"] for entry in ranked[:3]] == pytest.approx(
            second.tolist(), abs=1e-4
        )
        assert [len(entry["levels"]) for entry in ranked] == [2, 2, 2, 1, 1, 1]
        assert second.tolist() == sorted(second.tolist(), reverse=True)
        # Other dialects rank alike; a model with one scorer says nothing of levels.
        texts = client.post("/rerank", json={"query": QUERY, "texts": PASSAGES}).json()
        assert [entry["index"] for entry in texts] == [entry["index"] for entry in ranked]
        single = client.post("/rank", json={"query": "q", "passages": ["a"], "model": "tiny"}).json()
        assert "levels" not in single
        assert "levels" not in single["ranked"][0]
        assert client.get("/info").json()["model_id"] == f"{TINY} > {GEMMA}"
        assert client.get("/ready").json()["status"] == "ok"
        layer = {"query": "q", "passages": ["a"], "cutoff_layer": 2}
        assert "no cutoff layers" in client.post("/rank", json=layer).json()["error"]


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({}, r"args.models.m: scorer .* or levels .*: give one of them"),
        ({"scorer": {"model": TINY}, "levels": LEVELS}, "a cascade has its scorers in its levels"),
        ({"levels": [LEVELS[0], LEVELS[1] | {"keep": 1}]}, "levels.1.keep: leave it out; a request says"),
        ({"levels": [LEVELS[1], LEVELS[1]]}, "levels.0.keep: say how many"),
        ({"levels": [LEVELS[0], LEVELS[1] | {"fuse": {"first_stage": 1}}]},
         "models.m.*levels.1.fuse.first_stage: a request has no scores of a first stage; leave it out"),
        ({"levels": [LEVELS[0] | {"drop": True}, LEVELS[1]]}, "models.m.levels.0.drop: there is no such"),
        ({"levels": [{"scorer": {"model": TINY}, "keep": 2}, {"scorer": {"model": "./gone"}}]},
         r"args.models.m.levels.1.scorer: .*gone: no such directory"),
    ],
)  # fmt: skip
def test_levels_that_are_wrong_are_refused_before_a_rollout(model: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build_app({"models": {"m": model}, "api": {"keys": "none"}})


def test_each_level_has_replicas_of_its_own() -> None:
    own = {"max": 3, "num_gpus": 0.5}
    config = ServeConfig.model_validate(
        {
            "models": {"m": {"levels": [LEVELS[0], LEVELS[1] | {"replicas": own}], "replicas": {"max": 2}}},
            "api": {"keys": "none"},
        }
    )
    singles = config.models["m"].singles("m")
    assert [(name, one.replicas.max, one.placed_scorer.device) for name, one in singles.items()] == [
        ("m/levels.0", 2, "cpu"),
        ("m/levels.1", 3, "cuda"),
    ]


def test_it_is_ready_without_a_level_that_scales_to_zero() -> None:
    def cascade(minimum: int) -> Cascade:
        first = LEVELS[0] | {"replicas": {"min": minimum}}
        return Cascade(ModelConfig.model_validate({"levels": [first, LEVELS[1]]}), [StandIn(0), StandIn(1)])

    asyncio.run(cascade(0).check())
    with pytest.raises(RuntimeError, match="no replica"):
        asyncio.run(cascade(1).check())
