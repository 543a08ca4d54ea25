"""Cohere: POST /v2/rerank, and POST /v1/rerank where the request says that it is Cohere's.

Source: cohere-openapi.yaml and errors.mdx of cohere-ai/cohere-developer-experience (2026-08), and the SDKs
5.21 and 7.3, which send `X-Fern-SDK-Name: cohere`; by it v1 is told from Jina's API on the same path.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.datastructures import Headers

from pipeline.scoring import Limits
from serve.dialect import (
    ONE_OR_MORE,
    PASSAGES,
    QUERY,
    Answer,
    Call,
    FirstMistake,
    RequestBody,
    ResponseBody,
    ScoringEndpoint,
)
from serve.dialects import jina
from serve.problems import STATUS, Kind, Problem, UnknownModel
from serve.work import Work

NAME = "Cohere"
MAX_TOKENS_PER_DOC = 4096
_STATUS: dict[Kind, int] = {
    "media_type": 400,
    "invalid": 400,
    "header": 400,
    "empty": 400,
    "too_many": 400,
    "text_size": 400,
    "too_long": 400,
    "unscorable": 422,
    "timeout": 504,
}


def _checked(value: object) -> object:
    if isinstance(value, dict):
        raise PydanticCustomError("document", "Input should be a string; objects are for /v1/rerank")
    return value


_Document = Annotated[str, BeforeValidator(_checked), Field(json_schema_extra={"minLength": 1})]


class RerankRequest(RequestBody):
    query: str = Field(json_schema_extra={"pattern": r"[^\s\x1c-\x1f]"})
    """The question or key words."""
    documents: Annotated[list[_Document], FirstMistake()] = Field(json_schema_extra=ONE_OR_MORE)
    """The passages to rank."""
    model: str | None = None
    """A name or alias of a model; null or `default`: the first that is served."""
    top_n: int | None = Field(default=None, ge=1)
    """How many of the best to answer with. Null: all."""
    max_tokens_per_doc: int | None = Field(default=None, ge=1)
    """Tokens of each passage that are read. Null: 4096, as Cohere's."""
    priority: int | None = Field(default=None, ge=0, le=999)
    """Taken, and without effect."""


class Document(ResponseBody):
    text: str


class Result(ResponseBody):
    document: Annotated[Any, Field(default=None, exclude_if=lambda document: document is None)]
    """The passage, where v1 was asked for it."""
    index: int
    """The passage's place in the request, from 0."""
    relevance_score: float
    """The higher, the better. The results are ordered by it."""


class ApiVersion(ResponseBody):
    version: Literal["1", "2"]
    """Cohere's API that was spoken."""
    is_experimental: Annotated[bool | None, Field(default=None, exclude_if=lambda flag: flag is None)]
    """False in v2; v1 has none."""


class BilledUnits(ResponseBody):
    search_units: int
    """One for each 100 passages begun."""


class Meta(ResponseBody):
    api_version: ApiVersion
    """Which of Cohere's APIs answered."""
    billed_units: BilledUnits
    """What Cohere would have billed."""


class RerankResponse(ResponseBody):
    id: str
    """The request's id, also in the server's log."""
    results: list[Result]
    """The passages, best first."""
    meta: Meta
    """Version and units, as Cohere tells them."""


class ErrorBody(ResponseBody):
    message: str
    """What is wrong, and the way out."""
    id: str
    """The request's id, also in the server's log."""


def call(body: RerankRequest) -> Call:
    limits = Limits(passage_max_length=body.max_tokens_per_doc or MAX_TOKENS_PER_DOC)
    names = {"passage_max_length": "max_tokens_per_doc"}
    return _call(body.model, body.query, body.documents, limits, names)


def v1_call(body: jina.RerankRequest) -> Call:
    if body.top_n == 0:  # vLLM's on this path; Cohere's begins at 1
        raise Problem("invalid", "top_n: Input should be greater than or equal to 1", "top_n")
    return _call(body.model, body.query, body.passages, body.all_limits, body.limit_names)


def response(body: RerankRequest, answer: Answer) -> RerankResponse:
    version = ApiVersion(version="2", is_experimental=False)
    return _response(answer, body.top_n, version, None)


def v1_response(body: jina.RerankRequest, answer: Answer) -> RerankResponse:
    """Documents that came as objects go back whole."""
    shown = [{"text": entry} if isinstance(entry, str) else entry for entry in body.documents]
    version = ApiVersion(version="1", is_experimental=None)
    return _response(answer, body.top_n, version, shown if body.return_documents else None)


def error(problem: Problem, request_id: str) -> tuple[int, Any]:
    message = problem.message
    match problem.kind:
        case "json":
            message = f"invalid json syntax: {message}"
        case "unknown_model":
            message = (
                f"model '{problem.field}' not found, make sure the correct model ID was used and that you"
                " have access to the model."
            )
            if isinstance(problem, UnknownModel):
                message = f"{message} {problem.available}"
        case "no_key":
            message = "no api key supplied: send `Authorization: Bearer KEY`"
        case "unauthorized":
            message = f"invalid api token: {message}"
        case "invalid" | "header" | "too_many" | "text_size":
            message = f"invalid request: {message}"
    return _STATUS.get(problem.kind, STATUS[problem.kind]), {"message": message, "id": request_id}


def _call(
    model: str | None, query: str, passages: list[str], limits: Limits, limit_names: dict[str, str]
) -> Call:
    if not passages:
        raise Problem("empty", "invalid request: list of documents must not be empty")
    if not query.strip():
        raise Problem("empty", "invalid request: query must not be empty or be only whitespace")
    blank = next((index for index, passage in enumerate(passages) if not passage), None)
    if blank is not None:
        raise Problem("empty", f"invalid request: document at index {blank} cannot be empty")
    return Call(model, Work([query] * len(passages), passages, limits), limit_names=limit_names)


def _response(
    answer: Answer, top_n: int | None, version: ApiVersion, documents: list[dict[str, Any]] | None
) -> RerankResponse:
    """A search unit is a query with up to 100 documents."""
    units = -(-len(answer.scores.scores) // 100)
    return RerankResponse(
        id=answer.request_id,
        results=[
            Result(document=documents[index] if documents else None, index=index, relevance_score=score)
            for index, score in answer.ranked(top_n)
        ],
        meta=Meta(api_version=version, billed_units=BilledUnits(search_units=units)),
    )


def _is_from_its_sdk(headers: Headers, _body: object) -> bool:
    return "cohere" in headers.getlist("x-fern-sdk-name")


ENDPOINTS = (
    ScoringEndpoint(
        path="/v1/rerank",
        name="rerank_v1",
        tags=(NAME,),
        description="Cohere's v1 for requests of its SDKs (`X-Fern-SDK-Name: cohere`)",
        request=jina.RerankRequest,
        example={"query": QUERY, "documents": PASSAGES, "top_n": 2, "return_documents": True},
        response=RerankResponse,
        call=v1_call,
        respond=v1_response,
        recognises=_is_from_its_sdk,
        parameters=(
            {
                "name": "x-fern-sdk-name",
                "in": "header",
                "schema": {"type": "string"},
                "description": "`cohere`, as its SDKs send: the request and its answer are Cohere's v1.",
            },
        ),
    ),
    ScoringEndpoint(
        path="/v2/rerank",
        name="rerank_v2",
        tags=(NAME,),
        request=RerankRequest,
        example={"query": QUERY, "documents": PASSAGES, "top_n": 2},
        response=RerankResponse,
        call=call,
        respond=response,
    ),
)
