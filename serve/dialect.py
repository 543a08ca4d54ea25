"""What a dialect is made of. Each module of serve.dialects is one: an HTTP API as another server speaks it.

A module has `NAME`, `ErrorBody`, `error` and `ENDPOINTS`; the endpoints' requests and responses stand beside
them. Nothing else lists it.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError
from starlette.datastructures import Headers

from pipeline.ranking import Order, input_order
from serve.config import ServeConfig
from serve.problems import Problem
from serve.work import ModelInfo, Refused, Scores, Work


class RequestBody(BaseModel):
    """Fields that are not known are ignored, as all of these APIs do; a wrong type is not converted."""

    model_config = ConfigDict(strict=True, extra="ignore", use_attribute_docstrings=True)


class ResponseBody(BaseModel):
    """What is sent back, a part of it, or an error's body."""

    model_config = ConfigDict(use_attribute_docstrings=True)


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _checked(value: object) -> object:
    """One mistake where a union would tell of each of its members."""
    if isinstance(value, str | dict):
        return value
    raise PydanticCustomError("document", "Input should be a string or an object")


class FirstMistake(FailFast):
    """Of a list the first mistake is told: a million take gigabytes, and seconds for everybody."""

    def __hash__(self) -> int:  # for lists that may be null
        return hash(self.fail_fast)


ListOfTexts = Annotated[list[str], FirstMistake()]
Texts = Annotated[ListOfTexts, BeforeValidator(_listed, json_schema_input_type=str | list[str])]
"""A text for a list of one."""
Document = Annotated[str | dict[str, Any], BeforeValidator(_checked)]
Documents = Annotated[
    list[Document],
    FirstMistake(),
    BeforeValidator(_listed, json_schema_input_type=str | list[str | dict[str, Any]]),
]
ONE_OR_MORE: JsonDict = {"minItems": 1}
"""In the schema. None at all is refused later, in the dialect's own words."""


QUERY = "what is a panda?"
PASSAGES = ["hi", "The giant panda is a bear.", "Pandas eat bamboo."]
"""Of the examples in the API's document."""


@dataclass(frozen=True)
class Call:
    """A request of any dialect."""

    model: str | None
    """Null or `default`: the first that is served."""
    work: Work
    noun: str = "documents"
    """What the dialect calls passages."""
    limit_names: Mapping[str, str] = field(default_factory=dict)
    """What it calls fields of the work's limits."""

    def refusal(self, refused: Refused) -> str:
        """The message, in the dialect's words."""
        ours = refused.field or ""
        return refused.message.replace(ours, self.limit_names.get(ours, ours), 1)


@dataclass(frozen=True)
class Answer:
    """What a dialect makes its response from."""

    request_id: str
    model: str
    scores: Scores

    def ranked(self, top_n: int | None = None, order: Order = input_order) -> list[tuple[int, float]]:
        """(index, score), best first by the raw score; the top_n of them.

        order: tells where equal raw scores go.
        """
        best = order(self.scores.raw)[:top_n]
        return [(int(index), float(self.scores.scores[index])) for index in best]

    @property
    def tokens(self) -> int:
        return int(self.scores.tokens.sum())


Body = TypeVar("Body", bound=RequestBody)


@dataclass(frozen=True, kw_only=True)
class ScoringEndpoint(Generic[Body]):
    """POST: texts in, scores out."""

    path: str
    name: str
    """Of the operation, in the API's document."""
    tags: tuple[str, ...]
    description: str = ""
    """Without a full stop, since dialects that share a path have theirs in one sentence."""
    request: type[Body]
    example: dict[str, Any]
    """A request's body, for the API's document."""
    response: Any
    """The type of what `respond` returns."""
    call: Callable[[Body], Call]
    """Raises Problem for what the request's type can't say."""
    respond: Callable[[Body, Answer], Any]
    recognises: Callable[[Headers, object], bool] | None = None
    """Dialects may share a path: whether a request is this one's, by its headers and its JSON, which is null
    before it is read. One endpoint of a path has no such function: it takes the requests that are left."""
    parameters: tuple[dict[str, Any], ...] = ()
    """More headers, as OpenAPI describes them."""


class Served(Protocol):
    """What is served, for endpoints that tell about it."""

    config: ServeConfig

    @property
    def default(self) -> str:
        """The model of requests that name none."""

    async def info(self, name: str) -> ModelInfo:
        """Raises Problem."""


@dataclass(frozen=True, kw_only=True)
class ReadingEndpoint:
    """GET: about the server."""

    path: str
    name: str
    tags: tuple[str, ...]
    description: str = ""
    response: Any
    """The type of what `read` returns."""
    read: Callable[[Served], Awaitable[Any]]


Endpoint = ScoringEndpoint[Any] | ReadingEndpoint


class Dialect(Protocol):
    """A module of serve.dialects."""

    NAME: str
    ErrorBody: Any
    """The type of those bodies of `error` that are JSON."""

    @property
    def ENDPOINTS(self) -> Sequence[Endpoint]: ...  # noqa: N802 - a constant of the module

    def error(self, problem: Problem, request_id: str) -> tuple[int, Any]:
        """Status and body, a text or what becomes JSON."""


def texts(documents: Sequence[str | dict[str, Any]], fields: Sequence[str] = ("text",)) -> list[str]:
    """Documents as passages: strings, or objects of which `fields` are read.

    Several fields, and ones other than `text`, are put as `name: value` lines, as Cohere does (rank_fields).
    Raises Problem for an object without any of them.
    """
    passages = []
    for index, document in enumerate(documents):
        if isinstance(document, str):
            passages.append(document)
            continue
        values = [(name, document[name]) for name in fields if name in document]
        if not values or not all(isinstance(value, str) for _, value in values):
            wanted = " or ".join(repr(name) for name in fields)
            raise Problem("invalid", f"documents.{index}: needs {wanted}, a string", f"documents.{index}")
        bare = len(values) == 1 and values[0][0] == "text"
        passages.append(values[0][1] if bare else "\n".join(f"{name}: {value}" for name, value in values))
    return passages
