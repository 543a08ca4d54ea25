"""Around Ray Serve's proxy: what it stumbles over is kept from it, and its refusals are put in words."""

from collections.abc import Awaitable, Callable
from string import printable
from urllib.parse import quote_from_bytes

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline import log
from serve.dialect import Dialect
from serve.front.every_request import REQUEST_ID_LENGTH, response_to
from serve.problems import Kind, Problem

_RAYS_ANSWERS: dict[int, tuple[Kind, str]] = {
    408: ("timeout", "not done within the time that it may take"),
    429: ("overloaded", "too many requests at once"),
    503: ("unavailable", "no process of the API answered: one died with this request, or none is there"),
    404: ("unknown_path", "no application of this Ray Serve has this path; GET /-/routes tells theirs"),
}
"""The proxy's, in plain text. No dialect answers these so."""
_NONE_YET = "no application serves here"
_RAYS_PATHS = "/-/"
_ROUTES = f"{_RAYS_PATHS}routes"


class Edge:
    """ASGI middleware of the processes that hold the connections. It knows no config: that is the API's."""

    def __init__(
        self,
        app: ASGIApp,
        dialect_of: Callable[[str, Headers], Dialect],
        failed: Callable[[], Awaitable[str]],
    ) -> None:
        """failed: why the deploy failed of what should serve; empty where none did."""
        self._app = app
        self._dialect_of = dialect_of
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_RAYS_PATHS):
            await self._app(scope, receive, send)
            return
        # Ray decodes headers as UTF-8, and answers 500 where they are none.
        scope["headers"] = [(name, _taken(name, value)) for name, value in scope["headers"]]
        answer = _Answer(send)
        try:
            await self._app(scope, receive, answer.send)
        except Exception as error:  # whatever the proxy raises, the client shall have an answer
            log.warning("Serve's proxy failed", error=repr(error)[:200])
        if not answer.begun:
            kind, message = answer.rays or _RAYS_ANSWERS[503]
            if kind == "unknown_path" and not await self._has_applications(scope, receive):
                why = await self._failed() or "the endpoint is starting or has ended"
                kind, message = "unavailable", f"{_NONE_YET}: {why}"
            headers = Headers(scope=scope)
            dialect = self._dialect_of(scope["path"], headers)
            retry_after_s = 1.0 if kind in ("overloaded", "unavailable") else None
            problem = Problem(kind, message, retry_after_s=retry_after_s)
            response = response_to(problem, dialect, headers.get("x-request-id", ""))
            response.headers["connection"] = "close"
            if "x-request-id" in headers:  # the proxy makes one; of its own refusals the API logs nothing
                response.headers["x-request-id"] = headers["x-request-id"]
            await response(scope, receive, send)

    async def _has_applications(self, scope: Scope, receive: Receive) -> bool:
        """Whether the proxy knows any. Before the first one it has no such path as it does where one is
        misspelt, and a client takes 404 for an answer that stays.
        """
        told = b""

        async def keep(message: Message) -> None:
            nonlocal told
            told += message.get("body", b"")

        asked = {"method": "GET", "path": _ROUTES, "raw_path": _ROUTES.encode(), "query_string": b""}
        await self._app({**scope, **asked}, receive, keep)
        return told.startswith(b'{"')  # a JSON object of paths: `{}` without any, a text before the first


class _Answer:
    """What the proxy sends, but for its own refusals, which are kept back."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self.rays: tuple[Kind, str] | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            plain = Headers(raw=message["headers"]).get("content-type", "").startswith("text/plain")
            self.rays = _RAYS_ANSWERS.get(message["status"]) if plain else None
            self.begun = self.rays is None
        if self.begun:
            await self._send(message)


def _taken(name: bytes, value: bytes) -> bytes:
    """Bytes beyond printable ASCII as %XX; of a request's id, which the proxy sends back, what is logged."""
    ascii_only = quote_from_bytes(value, safe=_SAFE).encode()
    return ascii_only[:REQUEST_ID_LENGTH] if name == b"x-request-id" else ascii_only


_SAFE = printable.split()[0] + " \t"
