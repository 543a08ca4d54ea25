"""Reading the body of a request: JSON, of bounded size, with nothing that JSON does not have."""

from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from serve.problems import Problem


class JsonRequest(Request):
    """Raises Problem. No NaN, no lone surrogates, no invalid UTF-8, no nesting beyond 200 levels."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            _check_media_type(self.headers.get("content-type"))
            self._body = await self._read(self.app.state.max_body_bytes)
            if not self._body:
                raise Problem("json", "EOF while parsing a value at line 1 column 0")
        return self._body

    async def json(self) -> Any:
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise Problem("json", str(error)) from error

    async def _read(self, max_bytes: int) -> bytes:
        declared = self.headers.get("content-length", "")
        too_large = Problem("body_size", f"the body is larger than {max_bytes} bytes")
        if declared.isdecimal() and int(declared) > max_bytes:
            raise too_large
        chunks, size = [], 0
        async for chunk in self.stream():
            size += len(chunk)
            if size > max_bytes:
                raise too_large
            chunks.append(chunk)
        return b"".join(chunks)


class JsonRoute(APIRoute):
    """A route whose endpoint gets a JsonRequest."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def with_json(request: Request) -> Response:
            return await handle(JsonRequest(request.scope, request.receive))

        return with_json


def _check_media_type(value: str | None) -> None:
    message = Message()
    message["content-type"] = value or "missing/missing"
    subtype = message.get_content_subtype()
    json = message.get_content_maintype() == "application" and (
        subtype == "json" or subtype.endswith("+json")
    )
    if not json:
        raise Problem("media_type", "Unsupported Media Type: Only 'application/json' is allowed")
