"""POST /rank and GET /v1/models: this project's own words, with all that a replica tells.

The page at / speaks it, and the server does where a path is no dialect's.
"""

from typing import Any

from pydantic import Field

from serve.dialect import Answer, Call, ReadingEndpoint, RequestBody, ResponseBody, ScoringEndpoint, Served
from serve.problems import STATUS, Problem
from serve.work import Work

NAME = "rayrank"


class RankRequest(RequestBody):
    query: str
    passages: list[str] = Field(min_length=1)
    model: str | None = None
    top_k: int | None = Field(default=None, ge=1)
    normalize: bool = False
    """Scores through a sigmoid, where the model gives logits."""
    cutoff_layer: int | None = None
    """Null: the last of those that the model is served with."""


class RankedPassage(ResponseBody):
    rank: int
    """1-based."""
    index: int
    """Position among the passages of the request."""
    score: float
    query_cut: int
    passage_cut: int
    """Tokens that the model did not see."""
    first_character: int
    last_character: int
    """What the model saw of the passage: passage[first_character:last_character], in Unicode characters."""
    window: int


class Timings(ResponseBody):
    """Seconds."""

    tokenization: float
    queue: float
    inference: float


class RankResponse(ResponseBody):
    id: str
    model: str
    tokens: int
    timings: Timings
    ranked: list[RankedPassage]


class ModelCard(ResponseBody):
    id: str
    object: str = "model"
    cutoff_layers: list[int]
    """Empty where the model has one score."""


class ModelList(ResponseBody):
    object: str = "list"
    data: list[ModelCard]


class ErrorBody(ResponseBody):
    error: str
    kind: str
    field: str | None
    request_id: str


def call(body: RankRequest) -> Call:
    queries = [body.query] * len(body.passages)
    work = Work(queries, body.passages, normalize=body.normalize, cutoff_layer=body.cutoff_layer, spans=True)
    return Call(body.model, work)


def response(body: RankRequest, answer: Answer) -> RankResponse:
    scores = answer.scores
    spans = scores.spans or []
    return RankResponse(
        id=answer.request_id,
        model=answer.model,
        tokens=answer.tokens,
        timings=Timings(
            tokenization=scores.tokenization_s, queue=scores.queue_s, inference=scores.inference_s
        ),
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
            )
            for rank, (index, score) in enumerate(answer.ranked(body.top_k), start=1)
        ],
    )


async def models(served: Served) -> ModelList:
    return ModelList(
        data=[
            ModelCard(id=name, cutoff_layers=list(model.scorer.cutoff_layers or ()))
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
