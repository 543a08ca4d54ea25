"""Around a proxy that stumbles, as Ray Serve's does."""

import asyncio
from typing import Any

import httpx2
import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from serve.dialects import native
from serve.front.edge import Edge
from serve.routes import Routes


class Proxy:
    """Decodes headers as Ray's does, and then does `what`; tells its routes."""

    def __init__(self, what: Response | Exception | None, routes: Response | None = None) -> None:
        self.what = what
        self.routes = routes
        self.headers: dict[str, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        if scope["path"] == "/-/routes" and self.routes is not None:
            await self.routes(scope, receive, send)
            return
        if isinstance(self.what, Exception):
            raise self.what
        if self.what is not None:
            await self.what(scope, receive, send)


def asked(proxy: Proxy, path: str = "/rerank", headers: Any = None, failed: str = "") -> httpx2.Response:

    async def told() -> str:
        return failed

    async def ask() -> httpx2.Response:
        transport = httpx2.ASGITransport(Edge(proxy, Routes(elsewhere=native).dialect_of, told))
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(path, headers=headers, json={"query": "q", "texts": ["a"]})

    return asyncio.run(ask())


def test_bytes_beyond_ascii_reach_it_as_percent_signs_and_digits() -> None:
    proxy = Proxy(PlainTextResponse("fine"))
    headers = [(b"x-request-id", b"\xff\xfe id%20\t"), (b"accept", "é".encode())]
    assert asked(proxy, headers=headers).text == "fine"
    assert proxy.headers["x-request-id"] == "%FF%FE id%20\t"
    assert proxy.headers["accept"] == "%C3%A9"


def test_of_a_long_id_the_proxy_sends_back_what_is_logged() -> None:
    proxy = Proxy(PlainTextResponse("fine"))
    asked(proxy, headers={"x-request-id": "i" * 5000, "x-other": "o" * 5000})
    assert (len(proxy.headers["x-request-id"]), len(proxy.headers["x-other"])) == (200, 5000)


@pytest.mark.parametrize(
    ("what", "status", "kind"),
    [
        (None, 503, "Unhealthy"),
        (RuntimeError("of Ray's"), 503, "Unhealthy"),
        (PlainTextResponse("unavailable", 503), 503, "Unhealthy"),
        (PlainTextResponse("Request 1 timed out after 65s.", 408), 408, "Backend"),
        (PlainTextResponse("backpressure", 429), 429, "Overloaded"),
    ],
)
def test_where_it_refuses_or_has_no_answer_the_dialect_has(
    what: Response | Exception | None, status: int, kind: str
) -> None:
    answer = asked(Proxy(what), headers={"x-request-id": "mine"})
    assert (answer.status_code, answer.json()["error_type"]) == (status, kind)
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-request-id"] == "mine"
    assert asked(Proxy(what), "/rank", {"x-request-id": "mine"}).json()["request_id"] == "mine"


NOT_FOUND = PlainTextResponse("Path '/rerank' not found. Ping http://.../-/routes for available routes.", 404)


@pytest.mark.parametrize(
    "routes", [PlainTextResponse("Route table is not populated yet.", 503), JSONResponse({})]
)
def test_before_the_first_application_no_path_is_said_to_be_wrong(routes: Response) -> None:
    for path in ("/rerank", "/ready", "/v2/rerank", "/"):
        answer = asked(Proxy(NOT_FOUND, routes), path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "the endpoint is starting" in answer.text


def test_before_the_first_application_it_is_told_why_a_deploy_failed() -> None:
    answer = asked(Proxy(NOT_FOUND, JSONResponse({})), failed="DEPLOY_FAILED: args.api.keys.file k: no such")
    assert answer.status_code == 503
    assert answer.json()["error"] == (
        "no application serves here: DEPLOY_FAILED: args.api.keys.file k: no such"
    )


def test_a_path_of_no_application_is_a_404_in_the_dialects_words() -> None:
    proxy = Proxy(NOT_FOUND, JSONResponse({"/other": "app"}))
    answer = asked(proxy)
    assert (answer.status_code, answer.json()["error_type"]) == (404, "Validation")
    assert "GET /-/routes" in answer.json()["error"]
    assert "retry-after" not in answer.headers
    assert asked(proxy, "/v2/rerank").json()["message"] == asked(proxy, "/rank").json()["error"]


def test_its_other_answers_and_its_own_paths_are_left_alone() -> None:
    for answer, status in ((PlainTextResponse("fine"), 200), (JSONResponse({"error": "mine"}, 404), 404)):
        given = asked(Proxy(answer))
        assert (given.status_code, given.content) == (status, answer.body)
    unhealthy = asked(Proxy(PlainTextResponse("DRAINING", 503)), "/-/healthz")
    assert (unhealthy.status_code, unhealthy.text) == (503, "DRAINING")
