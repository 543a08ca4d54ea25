"""Reading the body of a request: JSON, of bounded size, with nothing that JSON does not have."""

from codecs import BOM_UTF8
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from email.message import Message
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import ClientDisconnect

from serve.config import ApiConfig
from serve.problems import Problem

_VALUE_BYTES = 100
"""Of a value in an object or a list, roughly: `{"a":1},` are 8 bytes of JSON and 200 in memory."""


class Room:
    """What the requests of all clients together hold of this process: no number of them fills its memory."""

    def __init__(self, config: ApiConfig) -> None:
        self._config = config
        self._requests = self._bytes = 0

    @contextmanager
    def request(self) -> Iterator["Body"]:
        """For as long as a request is here. Raises Problem where there are too many."""
        if self._requests >= self._config.max_requests:
            raise Problem("overloaded", "too many requests at once", retry_after_s=1)
        self._requests += 1
        body = Body(self._config, self._take)
        try:
            yield body
        finally:
            self._requests -= 1
            self._bytes -= body.size

    def _take(self, size: int) -> None:
        if self._bytes + size > self._config.max_buffered_bytes:
            raise Problem("overloaded", "the bodies of all requests are too large together", retry_after_s=1)
        self._bytes += size


class Body:
    """How much of a request's body is here."""

    def __init__(self, config: ApiConfig, take: Callable[[int], None]) -> None:
        self.size = 0
        self._max_bytes, self._max_buffered = config.max_body_bytes, config.max_buffered_bytes
        self._take = take

    def expect(self, declared: str) -> None:
        """declared: Content-Length. Raises Problem."""
        if declared.isdecimal() and int(declared) > self._max_bytes:
            raise self._too_large

    def add(self, size: int) -> None:
        """Raises Problem."""
        if self.size + size > self._max_bytes:
            raise self._too_large
        self._take(size)
        self.size += size

    def keep(self, fields: object) -> None:
        """fields: what stays of the parsed body until the answer. Raises Problem.

        Objects and lists take many times their bytes of JSON, unlike texts.
        """
        size = _VALUE_BYTES * _values_in(fields)
        if self.size + size > self._max_buffered:  # for which no room will ever be
            raise Problem(
                "body_size",
                f"the body's lists and objects take more memory than the {self._max_buffered} bytes allowed"
                " (api.max_buffered_bytes of the server's config): send fewer passages",
            )
        self._take(size)
        self.size += size

    @property
    def _too_large(self) -> Problem:
        return Problem(
            "body_size",
            f"the body is larger than the {self._max_bytes} bytes allowed (api.max_body_bytes of the"
            " server's config): send fewer or shorter texts",
        )


class JsonRequest(Request):
    """Raises Problem. No NaN, no lone surrogates, no invalid UTF-8, no nesting beyond 200 levels."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            _check_media_type(self.headers.get("content-type"))
            _check_encoding(self.headers.get("content-encoding", "identity"))
            self._body = await self._read(self.state.body)
            if not self._body:
                raise Problem("json", "EOF while parsing a value at line 1 column 0")
        return self._body

    async def json(self) -> Any:
        body = await self.body()
        try:
            return from_json(body.removeprefix(BOM_UTF8), allow_inf_nan=False)
        except ValueError as error:
            encoded = "" if _is_utf8(body) else ": the body must be UTF-8"
            raise Problem("json", f"{error}{encoded}") from error

    async def _read(self, body: Body) -> bytes:
        body.expect(self.headers.get("content-length", ""))
        chunks = []
        try:
            async for chunk in self.stream():
                body.add(len(chunk))
                chunks.append(chunk)
        except ClientDisconnect as error:
            raise Problem("late_body", "the connection ended before the body") from error
        return b"".join(chunks)


class JsonRoute(APIRoute):
    """A route whose endpoint gets a JsonRequest."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def with_json(request: Request) -> Response:
            return await handle(JsonRequest(request.scope, request.receive))

        return with_json


def _values_in(fields: object) -> int:
    count, left = 0, [fields]
    while left:
        value = left.pop()
        if isinstance(value, dict | list):
            count += len(value)
            left.extend(value.values() if isinstance(value, dict) else value)
    return count


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_encoding(value: str) -> None:
    if value.strip().lower() not in ("identity", ""):
        raise Problem("media_type", f"Content-Encoding {value[:100]}: send the body as it is, not compressed")


def _check_media_type(value: str | None) -> None:
    message = Message()
    message["content-type"] = value or "missing/missing"
    subtype = message.get_content_subtype()
    json = message.get_content_maintype() == "application" and (
        subtype == "json" or subtype.endswith("+json")
    )
    if not json:
        raise Problem("media_type", "Unsupported Media Type: Only 'application/json' is allowed")
