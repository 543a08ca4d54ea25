"""What every request passes: its id, its key and its deadline, and afterwards the log and the metrics."""

import asyncio
import math
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline import log
from serve.config import ApiConfig
from serve.deadline import time_allowed
from serve.dialect import Dialect
from serve.json_request import Room
from serve.keys import Gate
from serve.problems import Problem
from serve.work import Scores

_PUBLIC = {"/", "/health", "/ready", "/docs", "/openapi.json", "/favicon.ico"}
_STATIC = "/static-offline-docs/"
_LINGER_S = 0.5
REQUEST_ID_LENGTH = 200
"""Of a longer one that a client sends, the rest is left out."""
_TOO_LATE = ("timeout", "late_body")


@dataclass
class RequestReport:
    """What became of one request."""

    path: str
    """Below the `route_prefix`."""
    route: str = ""
    """The path where there is something at it; else empty, since anything may be asked for."""
    status: int = 0
    total_s: float = 0.0
    key: str = ""
    model: str = ""
    pairs: int = 0
    characters: int = 0
    """Of queries and passages, the query counted with each."""
    scores: Scores | None = None
    problem: str = ""
    """Its kind, where there is one."""
    ignored: str = ""
    """Names of fields that the request has and its dialect has not."""
    texts: dict[str, Any] | None = None
    """Only where the config asks for them in the log."""


class Observer(Protocol):
    """Counts requests, without those for pages and probes."""

    def request_done(self, report: RequestReport) -> None: ...


class Front:
    """ASGI middleware."""

    def __init__(
        self,
        app: ASGIApp,
        config: ApiConfig,
        gate: Gate,
        observer: Observer,
        dialect_of: Callable[[str, Headers], Dialect],
        paths: Iterable[str],
    ) -> None:
        """paths: of the API, as its document names them."""
        self._app = app
        self._timeout_s = config.timeout_s
        self._room = Room(config)
        self._gate = gate
        self._observer = observer
        self._dialect_of = dialect_of
        self._paths = _PUBLIC.union(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            # As GET, where FastAPI would answer 405: load balancers ask so. uvicorn leaves the body out.
            scope = {**scope, "method": "GET"}
        path = _below_prefix(scope)
        scope = {**scope, "path": scope.get("root_path", "").rstrip("/") + path}
        begin = time.perf_counter()
        headers = Headers(scope=scope)
        report = RequestReport(path, route=path if path in self._paths else "")
        state = scope.setdefault("state", {})
        # Ray Serve's proxy gives each request an id, and sends it back.
        state["request_id"] = headers.get("x-request-id", "")[:REQUEST_ID_LENGTH] or str(uuid.uuid4())
        state["dialect"] = self._dialect_of(path, headers)
        state["report"] = report

        rest = _Rest(receive, headers)

        async def send_with_timings(message: Message) -> None:
            if message["type"] == "http.response.start":
                report.status = message["status"]
                report.total_s = time.perf_counter() - begin
                _add_timings(MutableHeaders(scope=message), report)
                if report.ignored:
                    MutableHeaders(scope=message)["x-ignored-fields"] = report.ignored
                if not await rest.is_here(0 if report.problem in _TOO_LATE else _LINGER_S):
                    MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        try:
            await self._admitted(scope, rest, send_with_timings, headers)
        except Exception as error:  # a bug of ours; the client learns no more than that
            stack = "".join(traceback.format_tb(error.__traceback__))
            log.warning("request failed", id=state["request_id"], error=type(error).__name__, stack=stack)
            if not report.status:
                problem = Problem("internal", "an error of this server; its log tells more")
                await problem_response(scope, problem)(scope, receive, send_with_timings)
        finally:
            self._note(report, state)

    async def _admitted(self, scope: Scope, rest: "_Rest", send: Send, headers: Headers) -> None:
        state = scope["state"]
        path = state["report"].path
        if path in _PUBLIC or path.startswith(_STATIC):
            state["key"] = ""
            await self._app(scope, rest.receive, send)
            return
        try:
            client = (scope.get("client") or (None,))[0]
            state["key"] = self._gate.admit(headers.get("authorization"), client)
            with self._room.request() as state["body"]:
                self._gate.count_request(state["key"])
                await self._in_time(scope, rest, send, headers)
        except Problem as problem:
            await problem_response(scope, problem)(scope, rest.receive, send)

    async def _in_time(self, scope: Scope, rest: "_Rest", send: Send, headers: Headers) -> None:
        """The deadline holds for all of it: the rest of the body, the queue, the device. Raises Problem."""
        timeout_s, told = time_allowed(headers, self._timeout_s)
        scope["state"]["deadline"] = asyncio.get_running_loop().time() + timeout_s
        try:
            async with asyncio.timeout(timeout_s) as limit:
                await self._app(scope, rest.receive, send)
        except TimeoutError as error:
            if not limit.expired() or scope["state"]["report"].status:
                raise
            if not await rest.is_here(0):
                message = f"the body was not here within the time that the request may take: {told}"
                raise Problem("late_body", message) from error
            raise Problem("timeout", f"not done within the time that it may take: {told}") from error

    def _note(self, report: RequestReport, state: MutableMapping[str, Any]) -> None:
        """A client that left has status 499, as nginx logs it.

        Probes are neither logged nor counted: while models load, most of what is asked is whether they have.
        """
        report.status = report.status or 499
        report.key = state.get("key", "")
        if report.path in _PUBLIC or report.path.startswith(_STATIC):
            return
        self._observer.request_done(report)
        fields: dict[str, Any] = {"id": state["request_id"], "path": report.path, "status": report.status}
        if report.key:
            fields["key"] = report.key
        if report.problem:
            fields["problem"] = report.problem
        if report.model:
            fields |= {"model": report.model, "pairs": report.pairs}
        if report.scores is not None:
            fields |= {"tokens": int(report.scores.tokens.sum()), "queue_ms": report.scores.queue_s * 1000}
        log.info("request", **fields, total_ms=report.total_s * 1000, **(report.texts or {}))


def _below_prefix(scope: Scope) -> str:
    """The path below the `route_prefix` of Serve's config, which Ray leaves in front of it.

    Without a slash too many at the end: FastAPI would redirect, which few clients follow with POST.
    """
    path, prefix = scope["path"], scope.get("root_path", "").rstrip("/")
    below = path.removeprefix(prefix) if path == prefix or path.startswith(f"{prefix}/") else path
    return below.rstrip("/") or "/"


class _Rest:
    """What is still to come of a request's body when the answer is known."""

    def __init__(self, receive: Receive, headers: Headers) -> None:
        self._receive = receive
        self._is_here = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        self._waits_for_us = "100-continue" in headers.get("expect", "").lower()

    async def receive(self) -> Message:
        self._waits_for_us = False  # the first call tells the client to go on
        message = await self._receive()
        self._is_here = not message.get("more_body")
        return message

    async def is_here(self, linger_s: float) -> bool:
        """Whether all came. What comes within `linger_s` is dropped: a client that is closed upon while it
        sends may not see the answer. Nothing comes from one that was not told to send.
        """
        if self._waits_for_us:
            return self._is_here
        with suppress(TimeoutError):
            async with asyncio.timeout(linger_s):
                while not self._is_here:
                    await self.receive()
        return self._is_here


def problem_response(scope: Scope, problem: Problem) -> Response:
    """In the words of the dialect that the request speaks."""
    state = scope["state"]
    state["report"].problem = problem.kind
    return response_to(problem, state["dialect"], state["request_id"])


def response_to(problem: Problem, dialect: Dialect, request_id: str) -> Response:
    status, body = dialect.error(problem, request_id)
    headers = {}
    if problem.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after_s)))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return (
        PlainTextResponse(body, status, headers)
        if isinstance(body, str)
        else JSONResponse(body, status, headers)
    )


def _add_timings(headers: MutableHeaders, report: RequestReport) -> None:
    """text-embeddings-inference's names (router/src/lib.rs), in whole milliseconds.

    Of the request; there tokenization, queue and inference are means over its texts. `x-compute-type` would
    say `gpu+optimized` wherever it runs, so it is left out.
    """
    if report.scores is None or report.status != 200:
        return
    scores = report.scores
    values = {
        "x-compute-time": report.total_s * 1000,
        "x-compute-characters": report.characters,
        "x-compute-tokens": int(scores.tokens.sum()),
        "x-total-time": report.total_s * 1000,
        "x-tokenization-time": scores.tokenization_s * 1000,
        "x-queue-time": scores.queue_s * 1000,
        "x-inference-time": scores.inference_s * 1000,
    }
    for name, value in values.items():
        headers[name] = str(round(value))
