"""POST /rank: this project's own words, with all that a replica tells. The page at / speaks it."""

from typing import Any

from pydantic import BaseModel, Field

from serve.dialects.dialect import Answer, Call, RequestBody
from serve.problems import STATUS, Problem
from serve.work import Work


class RankRequest(RequestBody):
    query: str
    passages: list[str] = Field(min_length=1)
    model: str | None = None
    top_k: int | None = Field(default=None, ge=1)
    normalize: bool = False
    """Scores through a sigmoid, where the model gives logits."""
    cutoff_layer: int | None = None
    """Null: the last of those that the model is served with."""


class RankedPassage(BaseModel):
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


class Timings(BaseModel):
    """Seconds."""

    tokenization: float
    queue: float
    inference: float


class RankResponse(BaseModel):
    id: str
    model: str
    tokens: int
    timings: Timings
    ranked: list[RankedPassage]


class ErrorBody(BaseModel):
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


def error(problem: Problem, request_id: str) -> tuple[int, Any]:
    body = {
        "error": problem.message,
        "kind": problem.kind,
        "field": "model" if problem.kind == "unknown_model" else problem.field,
        "request_id": request_id,
    }
    return STATUS[problem.kind], body
