"""text-embeddings-inference 1.9: POST /rerank, GET /info.

Source: router/src/http/{server,types}.rs and docs/openapi.json of huggingface/text-embeddings-inference.
Where these two differ (a batch that is too large: 413 or 422), the documented status is given.
"""

from importlib.metadata import version
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline.ranking import reversed_input_order
from pipeline.scoring import Limits
from serve.dialect import (
    ONE_OR_MORE,
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
from serve.problems import STATUS, Kind, Problem, TooManyPassages
from serve.work import Work

NAME = "text-embeddings-inference"
_STATUS: dict[Kind, int] = {"empty": 400, "unscorable": 424, "internal": 424}
_ERROR_TYPES: dict[Kind, str] = {
    "empty": "Empty",
    "too_many": "Validation",
    "text_size": "Validation",
    "too_long": "Validation",
    "header": "Validation",
    "invalid": "Validation",
    "unknown_path": "Validation",
    "method": "Validation",
    "unknown_model": "Validation",
    "unscorable": "Backend",
    "internal": "Backend",
    "overloaded": "Overloaded",
    "rate_limit": "Overloaded",
    "unavailable": "Unhealthy",
    "timeout": "Backend",
    "late_body": "Validation",
    "forbidden": "Validation",
    "no_key": "Validation",
    "unauthorized": "Validation",
}


class RerankRequest(RequestBody):
    query: str
    """The question or key words."""
    texts: ListOfTexts = Field(json_schema_extra=ONE_OR_MORE)
    """The passages to rank."""
    truncate: bool | None = None
    """Null: as the model is configured."""
    truncation_direction: Literal["Right", "right", "Left", "left"] | None = None
    """Null: as the model is configured."""
    raw_scores: bool = False
    """True: logits instead of their sigmoid."""
    return_text: bool = False
    """True: answer with the passages' texts, too."""
    model: str | None = None
    """An addition: which of several models."""

    @model_validator(mode="before")
    @classmethod
    def _has_passages(cls, body: Any) -> Any:
        """Who misspells vLLM's `documents` on this path shall not look for `texts` alone."""
        if isinstance(body, dict) and "texts" not in body:
            raise PydanticCustomError("no_passages", "needs `texts`, or `documents` as vLLM's API has them")
        return body


class Rank(ResponseBody):
    index: int
    """The passage's place in the request, from 0."""
    text: Annotated[str | None, Field(default=None, exclude_if=lambda text: text is None)]
    """The passage, where it was asked for."""
    score: float
    """The higher, the better. The list is ordered by it."""


class ErrorBody(ResponseBody):
    error: str
    """What is wrong, and the way out."""
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]
    """One of text-embeddings-inference's kinds."""


class Info(ResponseBody):
    model_id: str
    """The checkpoint: a hub id or a path."""
    model_sha: str | None
    """Its commit, or a digest of its files."""
    model_dtype: str
    """In which the network computes."""
    served_model_name: str
    """The name that requests give as `model`."""
    model_type: dict[str, Any]
    """A reranker of one label."""
    max_concurrent_requests: int
    """`api.max_requests`: of all clients together."""
    max_input_length: int
    """Tokens that the model reads at once: of a pair, or of each text if it embeds query and passage apart.
    What is longer is cut, or refused."""
    max_batch_tokens: int
    """Tokens that go to the device at once."""
    max_batch_requests: int | None
    """Null: no limit."""
    max_client_batch_size: int
    """Passages of one request."""
    auto_truncate: bool
    """Whether a pair that is too long is cut."""
    tokenization_workers: int
    """Processes that turn texts to tokens."""
    version: str
    """Of this server."""
    sha: str | None
    """Null: not known."""
    docker_label: str | None
    """Null: not known."""


def call(body: RerankRequest) -> Call:
    if not body.texts:
        raise Problem("empty", "`texts` cannot be empty")
    if not body.query and not all(body.texts):
        raise Problem("empty", "Input validation error: `inputs` cannot be empty")
    sides: dict[str | None, Literal["left", "right"]] = {
        "Left": "left",
        "left": "left",
        "Right": "right",
        "right": "right",
    }
    limits = Limits(
        truncation=None if body.truncate is None else "cut" if body.truncate else "error",
        truncation_side=sides.get(body.truncation_direction),
    )
    queries = [body.query] * len(body.texts)
    work = Work(queries, body.texts, limits, normalize=not body.raw_scores)
    return Call(body.model, work, noun="texts")


def response(body: RerankRequest, answer: Answer) -> list[Rank]:
    """Best first; equal scores the last one first, as the server reverses an ascending sort."""
    return [
        Rank(index=index, text=body.texts[index] if body.return_text else None, score=score)
        for index, score in answer.ranked(order=reversed_input_order)
    ]


def error(problem: Problem, _request_id: str) -> tuple[int, Any]:
    status = _STATUS.get(problem.kind, STATUS[problem.kind])
    as_text = {
        "media_type": "Expected request with `Content-Type: application/json`",
        "json": f"Failed to parse the request body as JSON: {problem.message}",
        "body_size": f"Failed to buffer the request body: length limit exceeded: {problem.message}",
        "invalid": f"Failed to deserialize the JSON body into the target type: {problem.message}",
    }
    if problem.kind in as_text:
        return status, as_text[problem.kind]
    if problem.kind == "overloaded":
        return status, {"error": "Model is overloaded", "error_type": "Overloaded"}
    message = problem.message
    if isinstance(problem, TooManyPassages):
        message = f"batch size {problem.passages} > maximum allowed batch size {problem.limit}"
    return status, {"error": message, "error_type": _ERROR_TYPES[problem.kind]}


async def info(served: Served) -> Info:
    model = await served.info(served.default)
    api = served.config.api
    label = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    return Info(
        model_id=model.model,
        model_sha=model.fingerprint.removeprefix("commit:").removeprefix("sha256:"),
        model_dtype=model.dtype,
        served_model_name=served.default,
        model_type={"reranker": label},
        max_concurrent_requests=api.max_requests,
        max_input_length=model.max_length,
        max_batch_tokens=model.max_batch_tokens,
        max_batch_requests=None,
        max_client_batch_size=api.max_passages,
        auto_truncate=model.truncates,
        tokenization_workers=1,
        version=version("rayrank"),
        sha=None,
        docker_label=None,
    )


ENDPOINTS = (
    ScoringEndpoint(
        path="/rerank",
        name="rerank",
        tags=(NAME,),
        description="text-embeddings-inference's for a body with `texts`",
        request=RerankRequest,
        example={"query": QUERY, "texts": PASSAGES},
        response=list[Rank],
        call=call,
        respond=response,
    ),
    ReadingEndpoint(
        path="/info",
        name="info",
        tags=(NAME,),
        description="The default model, as text-embeddings-inference describes one",
        response=Info,
        read=info,
    ),
)
