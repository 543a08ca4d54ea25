"""POST /rank and GET /v1/models: this project's own words, with all that a replica tells.

The page at / speaks it, and the server does where a path is no dialect's.
"""

import time
from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict, Field

from serve.dialect import (
    PASSAGES,
    QUERY,
    Answer,
    Call,
    ListOfTexts,
    ReadingEndpoint,
    RequestBody,
    ResponseBody,
    ScoringEndpoint,
    Served,
)
from serve.problems import STATUS, Problem
from serve.work import LevelScores, Work

NAME = "rayrank"


class RankRequest(RequestBody):
    # Other servers' clients may send what these servers ignore; here a misspelt field is a mistake.
    model_config = ConfigDict(extra="forbid")

    query: str
    """The question or key words."""
    passages: ListOfTexts = Field(min_length=1)
    """The passages to rank."""
    model: str | None = None
    """A name or alias of a model; null or `default`: the first that is served."""
    top_k: int | None = Field(default=None, ge=1)
    """How many of the best to answer with. Null: all."""
    normalize: bool = False
    """Scores through a sigmoid, where the model gives logits."""
    cutoff_layer: int | None = None
    """Null: the last of those that the model is served with."""


def _is_none(value: object) -> bool:
    """Models with one scorer say nothing of levels, and models nothing of what they are an alias of."""
    return value is None


class LevelScore(ResponseBody):
    """What one level of a cascade gave a passage."""

    score: float
    """The higher, the better."""
    rank: int
    """1-based, among the passages that the level saw."""


class RankedPassage(ResponseBody):
    rank: int
    """1-based."""
    index: int
    """Position among the passages of the request."""
    score: float
    """The higher, the better; as the offline job writes it."""
    query_cut: int
    """Tokens of the query that the model did not see."""
    passage_cut: int
    """Tokens of the passage that the model did not see."""
    first_character: int
    """What the model saw of the passage begins here: a position in Unicode characters."""
    last_character: int
    """And ends before this one."""
    window: int
    """The window of a long passage that scored best, from 0."""
    levels: list[LevelScore] | None = Field(default=None, exclude_if=_is_none)
    """Of a cascade, those that saw the passage, from the first on. Its `score` is then 1 / rank."""


class Timings(ResponseBody):
    """Seconds."""

    tokenization: float
    """Texts to tokens."""
    queue: float
    """Waiting for the device."""
    inference: float
    """On the device."""


class LevelTimings(Timings):
    """Of one level of a cascade."""

    passages: int
    """That the level scored."""
    tokens: int
    """That the level read."""


class RankResponse(ResponseBody):
    id: str
    """The request's id, also in the server's log."""
    model: str
    """The model that scored."""
    normalizes: bool
    """Whether it gives logits, which `normalize` turns into scores from 0 to 1. Embedding models and cascades
    don't."""
    tokens: int
    """Tokens that were read."""
    timings: Timings
    """Where the time went."""
    levels: list[LevelTimings] | None = Field(default=None, exclude_if=_is_none)
    """Of a cascade; `timings` are then the sums."""
    ranked: list[RankedPassage]
    """The passages, best first."""


class ModelCard(ResponseBody):
    id: str
    """The name that requests give as `model`."""
    object: str = "model"
    """`model`."""
    created: int
    """Now, in seconds since 1970, as vLLM has it."""
    owned_by: str = NAME
    """`rayrank`."""
    aliases: list[str]
    """Other names that requests may give. Each stands in the list, too."""
    alias_of: str | None = Field(default=None, exclude_if=_is_none)
    """The model that it is another name of; answers give that one as `model`."""
    cutoff_layers: list[int]
    """Empty where the model has one score."""


class ModelList(ResponseBody):
    object: str = "list"
    """`list`."""
    data: list[ModelCard]
    """The models, each followed by its aliases; the first is the default."""


class ErrorBody(ResponseBody):
    error: str
    """What is wrong, and the way out."""
    kind: str
    """The kind of problem, for programs."""
    field: str | None
    """The request's field that is at fault, where it is one."""
    request_id: str
    """The request's id, also in the server's log."""


def call(body: RankRequest) -> Call:
    queries = [body.query] * len(body.passages)
    work = Work(queries, body.passages, normalize=body.normalize, cutoff_layer=body.cutoff_layer, spans=True)
    return Call(body.model, work, noun="passages")


def response(body: RankRequest, answer: Answer) -> RankResponse:
    scores, passages = answer.scores, _level_scores(answer.scores.levels)
    spans = scores.spans or []
    return RankResponse(
        id=answer.request_id,
        model=answer.model,
        normalizes=scores.normalizes,
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
            ModelCard(
                id=each,
                created=int(time.time()),
                aliases=list(model.aliases) if each == name else [],
                alias_of=None if each == name else name,
                cutoff_layers=list(model.cutoff_layers),
            )
            for name, model in served.config.models.items()
            for each in (name, *model.aliases)
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
        example={"query": QUERY, "passages": PASSAGES, "top_k": 2},
        response=RankResponse,
        call=call,
        respond=response,
    ),
    ReadingEndpoint(
        path="/v1/models",
        name="models",
        tags=("vLLM",),
        description="The models and aliases, as requests give them; the first is the default",
        response=ModelList,
        read=models,
    ),
)
