"""POST /rank and GET /v1/models: this project's own words, with all that a replica tells.

The page at / speaks it, and the server does where a path is no dialect's.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from serve.dialect import Answer, Call, ReadingEndpoint, RequestBody, ResponseBody, ScoringEndpoint, Served
from serve.problems import STATUS, Problem
from serve.work import LevelScores, Work

NAME = "rayrank"


class RankRequest(RequestBody):
    query: str
    """What the passages are ranked for."""
    passages: list[str] = Field(min_length=1)
    """The texts to rank."""
    model: str | None = None
    """Null, or `default`: the first model of the config."""
    top_k: int | None = Field(default=None, ge=1)
    """How many passages the answer holds. Null: all."""
    normalize: bool = False
    """Scores through a sigmoid, where the model gives logits."""
    cutoff_layer: int | None = None
    """Null: the last of those that the model is served with."""


def _is_none(levels: object) -> bool:
    """Models with one scorer say nothing of levels."""
    return levels is None


class LevelScore(ResponseBody):
    """What one level of a cascade gave a passage."""

    score: float
    """Higher is better; on the model's own scale."""
    rank: int
    """1-based, among the passages that the level saw."""


class RankedPassage(ResponseBody):
    rank: int
    """1-based."""
    index: int
    """Position among the passages of the request."""
    score: float
    """Higher is better; on the model's own scale unless `normalize` was asked for."""
    query_cut: int
    """Tokens of the query that the model did not see."""
    passage_cut: int
    """Tokens that the model did not see."""
    first_character: int
    """Where what the model saw of the passage begins."""
    last_character: int
    """What the model saw of the passage: passage[first_character:last_character], in Unicode characters."""
    window: int
    """Which window of a long passage gave the score, from 0."""
    levels: list[LevelScore] | None = Field(default=None, exclude_if=_is_none)
    """Of a cascade, those that saw the passage, from the first on. Its `score` is then 1 / rank."""


class Timings(ResponseBody):
    """Seconds."""

    tokenization: float
    """Turning texts into tokens."""
    queue: float
    """Waiting for the device."""
    inference: float
    """Scoring."""


class LevelTimings(Timings):
    """Of one level of a cascade."""

    passages: int
    """How many passages the level saw."""
    tokens: int
    """Tokens that its model read."""


class RankResponse(ResponseBody):
    id: str
    """The request's id, that of its log line."""
    model: str
    """The name of the model that scored."""
    tokens: int
    """Tokens of all pairs."""
    timings: Timings
    """Where the time went."""
    levels: list[LevelTimings] | None = Field(default=None, exclude_if=_is_none)
    """Of a cascade; `timings` are then the sums."""
    ranked: list[RankedPassage]
    """The passages, the best first."""


class ModelCard(ResponseBody):
    id: str
    """The name that requests give."""
    object: str = "model"
    cutoff_layers: list[int]
    """Empty where the model has one score."""


class ModelList(ResponseBody):
    object: str = "list"
    data: list[ModelCard]
    """The models, the default first."""


class ErrorBody(ResponseBody):
    error: str
    """What is wrong, in words."""
    kind: str
    """What is wrong, in one word."""
    field: str | None
    """The field of the request that is wrong. Null: no single one."""
    request_id: str
    """That of the log line."""


def call(body: RankRequest) -> Call:
    queries = [body.query] * len(body.passages)
    work = Work(queries, body.passages, normalize=body.normalize, cutoff_layer=body.cutoff_layer, spans=True)
    return Call(body.model, work)


def response(body: RankRequest, answer: Answer) -> RankResponse:
    scores, passages = answer.scores, _level_scores(answer.scores.levels)
    spans = scores.spans or []
    return RankResponse(
        id=answer.request_id,
        model=answer.model,
        tokens=answer.tokens,
        timings=Timings(
            tokenization=scores.tokenization_s, queue=scores.queue_s, inference=scores.inference_s
        ),
        levels=_timings(scores.levels),
        ranked=[
            RankedPassage(
                rank=rank,
                index=index,
                score=score,
                query_cut=int(scores.query_cut[index]),
                passage_cut=int(scores.passage_cut[index]),
                first_character=spans[index][0],
                last_character=spans[index][1],
                window=int(scores.windows[index]),
                levels=passages.get(index),
            )
            for rank, (index, score) in enumerate(answer.ranked(body.top_k), start=1)
        ],
    )


def _timings(levels: Sequence[LevelScores]) -> list[LevelTimings] | None:
    return [
        LevelTimings(
            passages=len(level.places),
            tokens=level.tokens,
            tokenization=level.tokenization_s,
            queue=level.queue_s,
            inference=level.inference_s,
        )
        for level in levels
    ] or None


def _level_scores(levels: Sequence[LevelScores]) -> dict[int, list[LevelScore]]:
    """By the passage's place in the request."""
    found: dict[int, list[LevelScore]] = {}
    for level in levels:
        for place, score, rank in zip(level.places, level.scores, level.ranks, strict=True):
            found.setdefault(int(place), []).append(LevelScore(score=float(score), rank=int(rank)))
    return found


async def models(served: Served) -> ModelList:
    return ModelList(
        data=[
            ModelCard(id=name, cutoff_layers=list(model.cutoff_layers))
            for name, model in served.config.models.items()
        ]
    )


def error(problem: Problem, request_id: str) -> tuple[int, Any]:
    body = {
        "error": problem.message,
        "kind": problem.kind,
        "field": "model" if problem.kind == "unknown_model" else problem.field,
        "request_id": request_id,
    }
    return STATUS[problem.kind], body


ENDPOINTS = (
    ScoringEndpoint(
        path="/rank",
        name="rank",
        tags=(NAME,),
        description="The server's own: ranks, scores as the offline job gives them, and what was cut",
        request=RankRequest,
        response=RankResponse,
        call=call,
        respond=response,
    ),
    ReadingEndpoint(
        path="/v1/models",
        name="models",
        tags=("vLLM",),
        description="The models by the names that requests give; the first is the default",
        response=ModelList,
        read=models,
    ),
)
