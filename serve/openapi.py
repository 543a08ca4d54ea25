"""What the OpenAPI document says beyond what FastAPI reads off the code."""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI

from serve.deadline import HEADER
from serve.dialects.dialect import Dialect
from serve.problems import STATUS, Kind, Problem

TIMEOUT = {
    "name": HEADER,
    "in": "header",
    "schema": {"type": "number", "exclusiveMinimum": 0},
    "description": "Seconds that the request may take, within the server's own limit.",
}
SDK_NAME = {
    "name": "x-fern-sdk-name",
    "in": "header",
    "schema": {"type": "string"},
    "description": "`cohere`, as its SDKs send: the request and its answer are Cohere's v1.",
}


def errors(model: Any, *dialects: Dialect, of: Iterable[Kind] = STATUS) -> dict[int | str, dict[str, Any]]:
    """A route's responses to what can be wrong, with the statuses and media types of its dialects.

    model: of the bodies that are JSON.
    """
    found: dict[int | str, dict[str, Any]] = {}
    for kind in of:
        for dialect in dialects:
            status, body = dialect.error(Problem(kind, ""), "")
            response = found.setdefault(status, {"description": "Why there is no answer"})
            if isinstance(body, str):
                response["content"] = {"text/plain": {"schema": {"type": "string"}}}
            else:
                response["model"] = model
    return found


WITHOUT_BODY: tuple[Kind, ...] = ("no_key", "unauthorized", "forbidden", "internal")
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
