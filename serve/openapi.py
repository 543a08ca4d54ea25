"""What the OpenAPI document says beyond what FastAPI reads off the code."""

from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import Annotated, Any

from fastapi import Body, FastAPI
from fastapi.openapi.models import Example
from pydantic import WrapValidator

from serve.deadline import HEADER
from serve.dialect import Dialect, ScoringEndpoint
from serve.problems import MEANING, STATUS, Kind, Problem

STATE = "state"
"""The tag of what is told to everyone."""
TIMEOUT = {
    "name": HEADER,
    "in": "header",
    "schema": {"type": "number", "exclusiveMinimum": 0},
    "description": "Seconds that the request may take, within the server's own limit.",
}

_OF_A_PATH: tuple[Kind, ...] = tuple(kind for kind in STATUS if kind not in ("unknown_path", "method"))
"""The others are answered where there is no path, or not this one."""


def errors(*dialects: Dialect, of: Iterable[Kind] = _OF_A_PATH) -> dict[int | str, dict[str, Any]]:
    """A route's responses to what can be wrong, with the statuses and media types of its dialects."""
    model = union(dialect.ErrorBody for dialect in dialects)
    responses: dict[int | str, dict[str, Any]] = {}
    for kind in of:
        for dialect in dialects:
            status, body = dialect.error(Problem(kind, ""), "")
            response = responses.setdefault(status, {"description": ""})
            told = [each for each in response["description"].split("; ") if each]
            response["description"] = "; ".join(dict.fromkeys([*told, MEANING[kind]]))
            if isinstance(body, str):
                response["content"] = {"text/plain": {"schema": {"type": "string"}}}
            else:
                response["model"] = model
    return responses


def union(types: Iterable[Any]) -> Any:
    return reduce(or_, types)


def unparsed(spoken: Iterable[tuple[Dialect, ScoringEndpoint[Any]]]) -> Any:
    """A body that the document describes as one of these, and that a route gets as it was sent."""
    spoken = tuple(spoken)
    body = union(endpoint.request for _, endpoint in spoken)
    examples: dict[str, Example] = {dialect.NAME: {"value": endpoint.example} for dialect, endpoint in spoken}
    described = Body(json_schema_extra=_one_of, openapi_examples=examples)
    return Annotated[body, described, WrapValidator(lambda value, _handler: value)]


def tags(dialects: Iterable[Dialect]) -> list[dict[str, str]]:
    """What heads the routes of each API, from the dialects' own words."""
    state = {"name": STATE, "description": "Whether the server lives, and is ready"}
    return [*({"name": each.NAME, "description": _first_words(each)} for each in dialects), state]


def _first_words(dialect: Dialect) -> str:
    return " ".join((dialect.__doc__ or "").partition("\n\n")[0].split())


def _one_of(schema: dict[str, Any]) -> None:
    """Of several dialects one recognises a body."""
    if "anyOf" in schema:
        schema["oneOf"] = schema.pop("anyOf")


WITHOUT_BODY: tuple[Kind, ...] = (
    "no_key",
    "unauthorized",
    "forbidden",
    "header",
    "rate_limit",
    "overloaded",
    "timeout",
    "unavailable",
    "internal",
)
"""What can be wrong with a request that only reads."""


def correct(app: FastAPI) -> None:
    """Of a route with a body FastAPI says that it answers 422 with a body of FastAPI's own: none does."""
    document = app.openapi()
    for operations in document["paths"].values():
        for operation in operations.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
