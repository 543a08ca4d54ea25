"""Jina's POST /v1/rerank, with what vLLM's of the same path adds.

Source: Jina's openapi.json, version 2026.04.02 (TextRerankerRequest, RerankingResponse, ErrorResponse), and
of vLLM 0.33 `id`, `usage.prompt_tokens` and, in errors, the object `error`; of Cohere `message`. Clients of
each ignore the others' fields.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.scoring import Limits
from serve.dialect import (
    ONE_OR_MORE,
    PASSAGES,
    QUERY,
    Answer,
    Call,
    Documents,
    ListOfTexts,
    ResponseBody,
    ScoringEndpoint,
    texts,
)
from serve.dialects import vllm
from serve.problems import STATUS, Kind, Problem
from serve.work import Work

NAME = "Jina"
_CODES: dict[Kind, str] = {
    "no_key": "AUTH_MISSING_API_KEY",
    "unauthorized": "AUTH_INVALID_API_KEY",
    "forbidden": "AUTH_FORBIDDEN",
    "unknown_model": "INPUT_MODEL_NOT_FOUND",
    "overloaded": "RATE_CONCURRENCY_LIMIT_EXCEEDED",
    "rate_limit": "RATE_REQUEST_LIMIT_EXCEEDED",
    "timeout": "SERVICE_TIMEOUT",
    "unavailable": "SERVICE_UNAVAILABLE",
    "internal": "INTERNAL_ERROR",
    "too_many": "INPUT_TOO_MANY_DOCUMENTS",
    "text_size": "INPUT_TOO_LARGE",
    "body_size": "INPUT_TOO_LARGE",
}
_STATUS: dict[Kind, int] = {"unknown_model": 400, "json": 422, "empty": 422, "timeout": 504}


class RerankRequest(vllm.Options):
    query: str
    """The question or key words."""
    documents: Documents = Field(json_schema_extra=ONE_OR_MORE)
    """The passages to rank: texts, or objects that hold one."""
    top_n: int | None = Field(default=None, ge=0)
    """Null or 0: all, as vLLM's clients mean it."""
    return_documents: bool | None = None
    """Null: true, as in Jina's specification."""
    truncation: bool | None = None
    """False: a pair that is too long is refused."""
    max_doc_length: int | None = Field(default=None, ge=1)
    """Tokens of each passage that are read. Null: as the model is configured."""
    rank_fields: ListOfTexts | None = Field(default=None, min_length=1)
    """The fields of object documents that are read, as `name: value` lines. Null: `text`."""
    max_chunks_per_doc: int | None = Field(default=None, ge=1)
    """Cohere's: a passage here is one chunk, cut where it is too long."""

    @property
    def all_limits(self) -> Limits:
        told = {None: self.limits.truncation, True: "cut", False: "error"}
        return self.limits.model_copy(
            update={
                "truncation": told[self.truncation],
                "passage_max_length": self.max_doc_length or self.limits.passage_max_length,
            }
        )

    @property
    def limit_names(self) -> dict[str, str]:
        return vllm.LIMIT_NAMES | ({"passage_max_length": "max_doc_length"} if self.max_doc_length else {})

    @property
    def passages(self) -> list[str]:
        return texts(self.documents, self.rank_fields or ("text",))


class Document(ResponseBody):
    text: str
    """As it was sent. Of an object without `text`, the lines that were read."""


class Result(ResponseBody):
    index: int
    """The passage's place in the request, from 0."""
    relevance_score: float
    """The higher, the better. The results are ordered by it."""
    document: Annotated[Document | None, Field(default=None, exclude_if=lambda document: document is None)]
    """The passage, where it was asked for."""


class RerankResponse(ResponseBody):
    id: str
    """`score-` and the request's id."""
    model: str
    """The model that scored."""
    object: Literal["list"] = "list"
    """`list`."""
    usage: vllm.Usage
    """Tokens that were read."""
    results: list[Result]
    """The passages, best first."""


class ErrorBody(ResponseBody):
    detail: str
    """What is wrong, and the way out."""
    message: str
    """The same, for Cohere's clients."""
    code: str
    """One of Jina's codes."""
    request_id: str
    """The request's id, also in the server's log."""
    error: vllm.ErrorInfo
    """The same, for vLLM's clients."""


def call(body: RerankRequest) -> Call:
    passages = body.passages
    if not passages:
        raise Problem("empty", "documents: at least one document is needed", "documents")
    work = Work(
        [body.query] * len(passages), passages, body.all_limits, normalize=body.use_activation is not False
    )
    return Call(body.model, work, limit_names=body.limit_names)


def response(body: RerankRequest, answer: Answer) -> RerankResponse:
    shown = [_text(*each) for each in zip(body.documents, body.passages, strict=True)]
    with_text = body.return_documents is not False
    return RerankResponse(
        id=f"score-{answer.request_id}",
        model=answer.model,
        usage=vllm.Usage(prompt_tokens=answer.tokens, total_tokens=answer.tokens),
        results=[
            Result(
                index=index,
                relevance_score=score,
                document=Document(text=shown[index]) if with_text else None,
            )
            for index, score in answer.ranked(body.top_n or None)
        ],
    )


def _text(document: str | dict[str, Any], passage: str) -> str:
    own = document.get("text") if isinstance(document, dict) else document
    return own if isinstance(own, str) else passage


def error(problem: Problem, request_id: str) -> tuple[int, Any]:
    status = _STATUS.get(problem.kind, STATUS[problem.kind])
    _, as_vllm = vllm.error(problem, request_id)
    info = as_vllm["error"] if isinstance(as_vllm["error"], dict) else {}
    return status, {
        "detail": problem.message,
        "message": problem.message,
        "code": _CODES.get(problem.kind, "INPUT_VALIDATION_ERROR"),
        "request_id": request_id,
        "error": {
            "message": problem.message,
            "type": info.get("type", "AuthenticationError"),
            "param": info.get("param"),
            "code": status,
        },
    }


ENDPOINTS = (
    ScoringEndpoint(
        path="/v1/rerank",
        name="rerank_v1",
        tags=(NAME, vllm.NAME),
        description="Jina's and vLLM's",
        request=RerankRequest,
        example={"query": QUERY, "documents": PASSAGES, "top_n": 2, "return_documents": False},
        response=RerankResponse,
        call=call,
        respond=response,
    ),
)
