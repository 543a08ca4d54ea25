"""vLLM 0.33: POST /score (and /v1/score), and POST /rerank for bodies with `documents`.

Source: vllm/entrypoints/pooling/scoring/{protocol,serving}.py and vllm/entrypoints/serve of the 0.33.0 wheel.
Its /v1/rerank is Jina's with `id` and `usage.prompt_tokens`: see jina.py.
"""

import time
from typing import Any, Literal

from pydantic import ConfigDict, Field
from starlette.datastructures import Headers

from pipeline.scoring import Limits
from serve.dialect import ONE_OR_MORE, Answer, Call, RequestBody, ResponseBody, ScoringEndpoint, Texts
from serve.problems import Kind, Problem
from serve.work import Work

NAME = "vLLM"
_STATUS: dict[Kind, int] = {
    "no_key": 401,
    "unauthorized": 401,
    "forbidden": 403,
    "unknown_model": 404,
    "timeout": 408,
    "late_body": 408,
    "too_many": 413,
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


class Options(RequestBody):
    model: str | None = None
    """Null, or `default`: the first model of the config."""
    user: str | None = None
    """Taken, and without effect."""
    truncate_prompt_tokens: int | None = Field(default=None, ge=-1)
    """Null: as the model is configured (vLLM: nothing is cut). -1: to the model's length."""
    truncation_side: Literal["left", "right"] | None = None
    """From which end texts are cut. Null: as the model is configured."""
    use_activation: bool | None = None
    """False: the logit instead of its sigmoid."""
    max_tokens_per_doc: int | None = Field(default=None, ge=0)
    """Null or 0: no limit of its own."""

    @property
    def limits(self) -> Limits:
        return Limits(
            max_length=self.truncate_prompt_tokens if (self.truncate_prompt_tokens or -1) > 0 else None,
            passage_max_length=self.max_tokens_per_doc or None,
            truncation_side=self.truncation_side,
        )


_NAMES = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))
"""Of what is scored against what, the oldest last."""


def _names_both_sides(schema: dict[str, Any]) -> None:
    given = {"not": {"type": "null"}} | ONE_OR_MORE
    schema["anyOf"] = [
        {"required": list(names), "properties": dict.fromkeys(names, given)} for names in _NAMES
    ]


class ScoreRequest(Options):
    """Two sides by one of four pairs of names."""

    model_config = ConfigDict(json_schema_extra=_names_both_sides)

    queries: Texts | None = None
    """One text, or several."""
    documents: Texts | None = None
    """One text, or several; with `queries`."""
    items: Texts | None = None
    """Another name of `documents`."""
    data_1: Texts | None = None
    """An older name of `queries`."""
    data_2: Texts | None = None
    """With `data_1`."""
    text_1: Texts | None = None
    """The oldest name of `queries`."""
    text_2: Texts | None = None
    """With `text_1`."""

    def sides(self) -> tuple[list[str], list[str]]:
        """As many queries as passages. Raises Problem."""
        lacking = []
        for names in _NAMES:
            sides = [getattr(self, name) for name in names]
            if None not in sides:
                return _paired(*sides)
            if sides.count(None) == 1:
                lacking.append(names[sides.index(None)])
        field = (lacking or ["queries"])[0]
        raise Problem("invalid", f"{field}: Field required", field)


class RerankRequest(Options):
    query: str
    """What the documents are ranked for."""
    documents: Texts = Field(json_schema_extra=ONE_OR_MORE)
    """The passages."""
    texts: None = None
    """With `texts` a body is text-embeddings-inference's."""
    top_n: int | None = Field(default=None, ge=0)
    """Null or 0: all."""


class Usage(ResponseBody):
    prompt_tokens: int
    total_tokens: int


class ScoreUsage(Usage):
    completion_tokens: int = 0
    prompt_tokens_details: None = None
    completion_tokens_details: None = None


class ScoreData(ResponseBody):
    index: int
    object: Literal["score"] = "score"
    score: float


class ScoreResponse(ResponseBody):
    id: str
    object: Literal["list"] = "list"
    created: int
    """Seconds since 1970."""
    model: str
    data: list[ScoreData]
    usage: ScoreUsage


class Document(ResponseBody):
    text: str
    multi_modal: None = None


class Result(ResponseBody):
    index: int
    document: Document
    relevance_score: float


class RerankResponse(ResponseBody):
    id: str
    model: str
    usage: Usage
    results: list[Result]


class ErrorInfo(ResponseBody):
    message: str
    type: str
    param: str | None
    code: int


class ErrorBody(ResponseBody):
    error: ErrorInfo | str


def score_call(body: ScoreRequest) -> Call:
    queries, passages = body.sides()
    return _call(body, queries, passages)


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
        return status, {"error": "Unauthorized"}
    malformed = problem.kind in ("json", "invalid", "media_type")
    kind = "Bad Request" if malformed else _TYPES.get(status, "BadRequestError")
    message = f"1 validation error:\n  {problem.message}" if malformed else problem.message
    if problem.kind == "unknown_model":
        message = f"The model `{problem.field}` does not exist."
    param = f"body.{problem.field}" if malformed and problem.field else None
    return status, {"error": {"message": message, "type": kind, "param": param, "code": status}}


def _call(body: Options, queries: list[str], passages: list[str]) -> Call:
    return Call(body.model, Work(queries, passages, body.limits, normalize=body.use_activation is not False))


def _paired(queries: list[str], passages: list[str]) -> tuple[list[str], list[str]]:
    if not queries:
        raise Problem("empty", "At least one text element must be given")
    if not passages:
        raise Problem("empty", "At least one text_pair element must be given")
    if len(queries) == 1:
        return queries * len(passages), passages
    if len(queries) != len(passages):
        raise Problem("empty", "Input lengths must be either 1:1, 1:N or N:N")
    return queries, passages


def _has_documents(_headers: Headers, body: object) -> bool:
    return isinstance(body, dict) and "documents" in body and body.get("texts") is None


ENDPOINTS = (
    ScoringEndpoint(
        path="/rerank",
        name="rerank",
        tags=(NAME,),
        description="vLLM's for one with `documents`",
        request=RerankRequest,
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
            response=ScoreResponse,
            call=score_call,
            respond=score_response,
        )
        for path in ("/score", "/v1/score")
    ),
)
