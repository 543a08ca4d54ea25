"""vLLM 0.33: POST /score (and /v1/score), and POST /rerank for bodies with `documents`.

Source: vllm/entrypoints/pooling/scoring/{protocol,serving}.py and vllm/entrypoints/serve of the 0.33.0 wheel.
Its /v1/rerank is Jina's with `id` and `usage.prompt_tokens`: see jina.py.
"""

import time
from typing import Any, Literal

from pydantic import ConfigDict, Field
from starlette.datastructures import Headers

from pipeline.scoring import Limits
from serve.dialect import (
    ONE_OR_MORE,
    PASSAGES,
    QUERY,
    Answer,
    Call,
    RequestBody,
    ResponseBody,
    ScoringEndpoint,
    Texts,
)
from serve.problems import Kind, Problem, UnknownModel
from serve.two_sides import names_both_sides, sides_of
from serve.work import Work

NAME = "vLLM"
_STATUS: dict[Kind, int] = {
    "no_key": 401,
    "unauthorized": 401,
    "forbidden": 403,
    "unknown_path": 404,
    "unknown_model": 404,
    "method": 405,
    "timeout": 408,
    "late_body": 408,
    "too_many": 413,
    "text_size": 413,
    "body_size": 413,
    "overloaded": 429,
    "rate_limit": 429,
    "internal": 500,
    "unavailable": 503,
}
"""All else is 400."""
_TYPES: dict[int, str] = {
    404: "NotFoundError",
    408: "RequestTimeout",
    413: "RequestEntityTooLarge",
    429: "TooManyRequests",
    403: "PermissionDeniedError",
    500: "InternalServerError",
    503: "Service Unavailable",
}


LIMIT_NAMES = {"max_length": "truncate_prompt_tokens", "passage_max_length": "max_tokens_per_doc"}
"""Of the fields of `Options.limits`."""


class Options(RequestBody):
    model: str | None = None
    """A name or alias of a model; null or `default`: the first that is served."""
    user: str | None = None
    """Taken, and without effect."""
    truncate_prompt_tokens: int | None = Field(default=None, ge=-1)
    """Null: as the model is configured (vLLM: nothing is cut). -1: to the model's length."""
    truncation_side: Literal["left", "right"] | None = None
    """Where a text that is too long is cut. Null: as the model is configured."""
    use_activation: bool | None = None
    """False: the logit instead of its sigmoid."""
    max_tokens_per_doc: int | None = Field(default=None, ge=0)
    """Null or 0: no limit of its own."""

    @property
    def limits(self) -> Limits:
        return Limits(
            max_length=self.truncate_prompt_tokens if (self.truncate_prompt_tokens or -1) > 0 else None,
            truncation=None if self.truncate_prompt_tokens is None else "cut",
            passage_max_length=self.max_tokens_per_doc or None,
            truncation_side=self.truncation_side,
        )


class ScoreRequest(Options):
    """Two sides by one of four pairs of names."""

    model_config = ConfigDict(json_schema_extra=names_both_sides)

    queries: Texts | None = None
    """One text, or several; goes with `documents` or `items`."""
    documents: Texts | None = None
    """What the queries are scored against."""
    items: Texts | None = None
    """The same under another name."""
    data_1: Texts | None = None
    """An older name of the queries; goes with `data_2`."""
    data_2: Texts | None = None
    """An older name of the documents."""
    text_1: Texts | None = None
    """The oldest name of the queries; goes with `text_2`."""
    text_2: Texts | None = None
    """The oldest name of the documents."""


class RerankRequest(Options):
    query: str
    """The question or key words."""
    documents: Texts = Field(json_schema_extra=ONE_OR_MORE)
    """The passages to rank."""
    texts: None = None
    """With `texts` a body is text-embeddings-inference's."""
    top_n: int | None = Field(default=None, ge=0)
    """Null or 0: all."""


class Usage(ResponseBody):
    prompt_tokens: int
    """Tokens that were read."""
    total_tokens: int
    """The same: nothing is generated."""


class ScoreUsage(Usage):
    completion_tokens: int = 0
    """0: nothing is generated."""
    prompt_tokens_details: None = None
    """Null."""
    completion_tokens_details: None = None
    """Null."""


class ScoreData(ResponseBody):
    index: int
    """The pair's place in the request, from 0."""
    object: Literal["score"] = "score"
    """`score`."""
    score: float
    """The higher, the better."""


class ScoreResponse(ResponseBody):
    id: str
    """`score-` and the request's id."""
    object: Literal["list"] = "list"
    """`list`."""
    created: int
    """Seconds since 1970."""
    model: str
    """The model that scored."""
    data: list[ScoreData]
    """The pairs, in the order given."""
    usage: ScoreUsage
    """Tokens that were read."""


class Document(ResponseBody):
    text: str
    """The passage as it was sent."""
    multi_modal: None = None
    """Null: texts alone are scored."""


class Result(ResponseBody):
    index: int
    """The passage's place in the request, from 0."""
    document: Document
    """The passage."""
    relevance_score: float
    """The higher, the better. The results are ordered by it."""


class RerankResponse(ResponseBody):
    id: str
    """`score-` and the request's id."""
    model: str
    """The model that scored."""
    usage: Usage
    """Tokens that were read."""
    results: list[Result]
    """The passages, best first."""


class ErrorInfo(ResponseBody):
    message: str
    """What is wrong, and the way out."""
    type: str
    """One of vLLM's types."""
    param: str | None
    """The request's field that is at fault, where it is one."""
    code: int
    """The HTTP status."""


class ErrorBody(ResponseBody):
    error: ErrorInfo | str
    """What is wrong; `Unauthorized: ...` for want of a key."""


def score_call(body: ScoreRequest) -> Call:
    return _call(body, *sides_of(body))


def rerank_call(body: RerankRequest) -> Call:
    if not body.documents:
        raise Problem("empty", "At least one text_pair element must be given")
    return _call(body, [body.query] * len(body.documents), body.documents)


def score_response(_body: ScoreRequest, answer: Answer) -> ScoreResponse:
    """In input order."""
    return ScoreResponse(
        id=f"score-{answer.request_id}",
        created=int(time.time()),
        model=answer.model,
        data=[ScoreData(index=index, score=float(score)) for index, score in enumerate(answer.scores.scores)],
        usage=ScoreUsage(prompt_tokens=answer.tokens, total_tokens=answer.tokens),
    )


def rerank_response(body: RerankRequest, answer: Answer) -> RerankResponse:
    return RerankResponse(
        id=f"score-{answer.request_id}",
        model=answer.model,
        usage=Usage(prompt_tokens=answer.tokens, total_tokens=answer.tokens),
        results=[
            Result(index=index, document=Document(text=body.documents[index]), relevance_score=score)
            for index, score in answer.ranked(body.top_n or None)
        ],
    )


def error(problem: Problem, _request_id: str) -> tuple[int, Any]:
    status = _STATUS.get(problem.kind, 400)
    if status == 401:
        return status, {"error": f"Unauthorized: {problem.message}"}
    malformed = problem.kind in ("json", "invalid", "media_type")
    kind = "Bad Request" if malformed else _TYPES.get(status, "BadRequestError")
    message = f"1 validation error:\n  {problem.message}" if malformed else problem.message
    if problem.kind == "unknown_model":
        available = f" {problem.available}" if isinstance(problem, UnknownModel) else ""
        message = f"The model `{problem.field}` does not exist.{available}"
    param = f"body.{problem.field}" if malformed and problem.field else None
    return status, {"error": {"message": message, "type": kind, "param": param, "code": status}}


def _call(body: Options, queries: list[str], passages: list[str]) -> Call:
    work = Work(queries, passages, body.limits, normalize=body.use_activation is not False)
    return Call(body.model, work, limit_names=LIMIT_NAMES)


def _has_documents(_headers: Headers, body: object) -> bool:
    return isinstance(body, dict) and "documents" in body and body.get("texts") is None


ENDPOINTS = (
    ScoringEndpoint(
        path="/rerank",
        name="rerank",
        tags=(NAME,),
        description="vLLM's for one with `documents`",
        request=RerankRequest,
        example={"query": QUERY, "documents": PASSAGES, "top_n": 2},
        response=RerankResponse,
        call=rerank_call,
        respond=rerank_response,
        recognises=_has_documents,
    ),
    *(
        ScoringEndpoint(
            path=path,
            name="score",
            tags=(NAME,),
            description="Scores of pairs: 1:1, 1:N or N:N, in the order given",
            request=ScoreRequest,
            example={"queries": QUERY, "documents": PASSAGES},
            response=ScoreResponse,
            call=score_call,
            respond=score_response,
        )
        for path in ("/score", "/v1/score")
    ),
)
