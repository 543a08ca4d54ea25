"""What every request passes: ids, the log, timings, and what is told of errors."""

import asyncio
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest

from serve import service
from serve.work import ModelInfo
from tests.conftest import TINY
from tests.serve.local import LocalServer, eventually, serving

SECRET = "the secret of the user"
BODY = {"query": SECRET, "texts": [SECRET, "hi"]}


@pytest.fixture(scope="module")
def small() -> Iterator[LocalServer]:
    """Two seconds for a request, and room for four."""
    with serving({"tiny": {"model": TINY}}, timeout_s=2, max_body_bytes=2000, max_requests=4) as made:
        yield made


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="rayrank")
    return caplog


def test_a_request_is_one_line_of_the_log_without_its_texts(
    client: httpx2.Client, lines: pytest.LogCaptureFixture
) -> None:
    client.post("/rerank", json=BODY, headers={"X-Request-ID": "my id"})
    eventually(lambda: "my id" in lines.text)
    (line,) = [record.message for record in lines.records if "my id" in record.message]
    assert line.startswith(
        "request id='my id' path=/rerank status=200 key=anonymous model=tiny pairs=2 tokens="
    )
    assert "queue_ms=" in line
    assert SECRET not in lines.text


@pytest.mark.parametrize(
    "body", [{"query": SECRET, "texts": SECRET}, {"query": [SECRET]}, {"query": SECRET, "texts": [SECRET, 1]}]
)
def test_errors_hold_no_texts(client: httpx2.Client, lines: pytest.LogCaptureFixture, body: Any) -> None:
    for path in ("/rerank", "/v1/rerank", "/v2/rerank", "/score", "/rank"):
        answer = client.post(path, json=body)
        assert answer.status_code in (400, 422)
        assert SECRET not in answer.text
    assert SECRET not in lines.text


def test_texts_are_logged_where_asked_for(lines: pytest.LogCaptureFixture) -> None:
    with serving({"tiny": {"model": TINY}}, log_texts=True) as server:
        httpx2.post(f"{server.url}/rerank", json=BODY)
        eventually(lambda: SECRET in lines.text)
        httpx2.post(f"{server.url}/score", json={"queries": ["first", "second"], "documents": ["a", "b"]})
        eventually(lambda: "'second'" in lines.text)


def test_of_a_long_id_the_beginning_is_logged(client: httpx2.Client, lines: pytest.LogCaptureFixture) -> None:
    answer = client.post("/v2/rerank", json={}, headers={"X-Request-ID": "i" * 5000})
    assert answer.json()["id"] == "i" * 200
    eventually(lambda: "i" * 200 in lines.text)
    assert "i" * 201 not in lines.text


def test_a_bug_of_ours_is_a_500_that_tells_nothing(
    server: LocalServer,
    client: httpx2.Client,
    lines: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(_work: Any) -> Any:
        raise KeyError(SECRET)

    monkeypatch.setattr(server.models["tiny"], "score", broken)
    answer = client.post("/rank", json={"query": "q", "passages": ["a"]}, headers={"X-Request-ID": "some-id"})
    assert answer.status_code == 500
    assert answer.json() == {
        "error": "an error of this server; its log tells more",
        "kind": "internal",
        "field": None,
        "request_id": "some-id",
    }
    assert "request failed id=some-id error=KeyError" in lines.text
    assert "in broken" in lines.text
    assert SECRET not in lines.text.replace("raise KeyError(SECRET)", "")


def test_reports_tell_what_became_of_each_request(server: LocalServer, client: httpx2.Client) -> None:
    client.post("/rerank", json=BODY)
    client.post("/rank", json={"query": "q", "passages": ["a"], "model": "other"})
    client.get("/nowhere")
    eventually(lambda: server.reports.seen[-1].path == "/nowhere")
    scored, unknown, lost = server.reports.seen[-3:]
    assert (scored.status, scored.model, scored.pairs, scored.problem) == (200, "tiny", 2, "")
    assert scored.scores is not None
    assert scored.total_s > scored.scores.inference_s > 0
    assert (unknown.status, unknown.problem) == (404, "unknown_model")
    assert (lost.status, lost.path) == (404, "/nowhere")
    assert (scored.route, unknown.route, lost.route) == ("/rerank", "/rank", "")


def test_probes_and_pages_are_not_counted(server: LocalServer, client: httpx2.Client) -> None:
    """While models load, nearly all requests are probes that get a 503."""
    before = len(server.reports.seen)
    for path in ("/ready", "/health", "/", "/openapi.json", "/docs", "/rerank"):
        client.get(path)
    eventually(lambda: server.reports.seen[-1].status == 405)
    assert {report.path for report in server.reports.seen[before:]} == {"/rerank"}


def test_timings_are_told_in_headers(client: httpx2.Client) -> None:
    headers = client.post("/v2/rerank", json={"query": "q", "documents": ["a b c"] * 50}).headers
    milliseconds = {
        name: int(headers[f"x-{name}-time"]) for name in ("total", "tokenization", "queue", "inference")
    }
    assert milliseconds["total"] >= milliseconds["inference"]
    assert int(headers["x-compute-tokens"]) > 200


def test_other_origins_are_let_in_only_where_configured(client: httpx2.Client) -> None:
    asking = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in client.options("/rerank", headers=asking).headers
    assert "access-control-allow-origin" not in client.post("/rerank", json=BODY, headers=asking).headers
    with serving({"tiny": {"model": TINY}}, cors_origins=["https://app.example"]) as server:
        allowed = httpx2.options(f"{server.url}/rerank", headers=asking)
        assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        for refused in ({"query": 1}, BODY | {"model": "none"}):  # a page may read why
            answer = httpx2.post(f"{server.url}/rerank", json=refused, headers=asking)
            assert answer.status_code in (404, 422)
            assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert answer.headers["access-control-expose-headers"] == "*"
        of_an_sdk = {"Access-Control-Request-Headers": "authorization,x-fern-sdk-name,x-client-name"}
        assert httpx2.options(f"{server.url}/v1/rerank", headers=asking | of_an_sdk).status_code == 200
        other = httpx2.options(f"{server.url}/rerank", headers=asking | {"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    "sent",
    [
        b"Content-Length: 100000000\r\n\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n7d0\r\n" + b" " * 2000 + b"\r\n",
    ],
)
def test_a_body_that_is_too_large_is_refused_before_it_is_all_there(sent: bytes) -> None:
    with serving({"tiny": {"model": TINY}}, max_body_bytes=1000) as server:
        address = httpx2.URL(server.url)
        with socket.create_connection((address.host, address.port or 0), timeout=10) as connection:
            connection.sendall(b"POST /rank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + sent)
            assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_the_deadline_header_must_be_a_positive_number(client: httpx2.Client) -> None:
    for value in ("soon", "0", "-1", "nan", "inf"):
        answer = client.post(
            "/rank", json={"query": "q", "passages": ["a"]}, headers={"X-Request-Timeout-Seconds": value}
        )
        assert answer.status_code == 422
        assert "positive number of seconds" in answer.json()["error"]


def sent(server: LocalServer, request: bytes, timeout_s: float = 10) -> tuple[bytes, float]:
    """What comes back until the server closes the connection, and after how long that is."""
    address = httpx2.URL(server.url)
    begin = time.monotonic()
    with socket.create_connection((address.host, address.port or 0), timeout=timeout_s) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer, time.monotonic() - begin


HEAD = b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 1000\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"]
)
def test_a_body_that_stops_is_answered_at_the_deadline_and_the_connection_closed(
    small: LocalServer, framing: bytes
) -> None:
    answer, took_s = sent(small, HEAD + framing)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer
    assert b'"error_type":"Validation"' in answer
    assert 2 <= took_s < 6
    for path in (b"/v1/rerank", b"/v2/rerank", b"/score", b"/rank"):
        late = HEAD.replace(b"/rerank", path) + b"X-Request-Timeout-Seconds: 0.1\r\n" + framing
        assert sent(small, late)[0].startswith(b"HTTP/1.1 408 ")
    asked_for_less, took_s = sent(small, HEAD + b"X-Request-Timeout-Seconds: 0.2\r\n" + framing)
    assert asked_for_less.startswith(b"HTTP/1.1 408 ")
    assert took_s < 2


def test_an_answer_before_the_body_ends_the_connection_and_one_after_it_does_not(small: LocalServer) -> None:
    early, _ = sent(small, HEAD.replace(b"/rerank", b"/nowhere") + b"Content-Length: 1000\r\n\r\n{")
    assert early.startswith(b"HTTP/1.1 404 ")
    assert b"connection: close" in early
    with httpx2.Client(base_url=small.url) as client:
        assert "connection" not in client.post("/nowhere", json=BODY).headers
        assert "connection" not in client.post("/rerank", json=BODY).headers


def test_more_requests_than_there_is_room_for_are_refused_at_once(small: LocalServer) -> None:
    """`small` has room for four."""
    address = httpx2.URL(small.url)
    with ExitStack() as open_ones, httpx2.Client(base_url=small.url) as client:
        held = [
            open_ones.enter_context(socket.create_connection((address.host, address.port or 0), timeout=10))
            for _ in range(4)
        ]
        for connection in held:
            connection.sendall(HEAD + b"Content-Length: 900\r\n\r\n ")
        eventually(lambda: client.post("/rerank", json=BODY).status_code == 429)
        assert client.get("/health").status_code == 200
        assert [connection.recv(12) for connection in held] == [b"HTTP/1.1 408"] * 4
        assert client.post("/rerank", json=BODY).status_code == 200


def test_a_reading_endpoint_has_a_deadline_too(small: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never() -> ModelInfo:
        await asyncio.sleep(60)
        raise AssertionError

    monkeypatch.setattr(small.models["tiny"], "info", never)
    assert httpx2.get(f"{small.url}/info", timeout=10).status_code == 408


def test_ready_tells_of_a_rollout_that_failed(small: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small, "rollout", "DEPLOY_FAILED: /models/v3: no such directory")
    answer = httpx2.get(f"{small.url}/ready")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "not_ready": [],
        "rollout": "DEPLOY_FAILED: /models/v3: no such directory",
        "keys": "",
    }


def test_ready_waits_for_no_model_without_a_replica(
    small: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never() -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(service, "READY_WITHIN_S", 0.1)
    monkeypatch.setattr(small.models["tiny"], "check", never)
    answer = httpx2.get(f"{small.url}/ready", timeout=30)
    assert (answer.status_code, answer.json()["not_ready"]) == (503, ["tiny"])


def test_a_refused_client_that_waits_to_be_told_to_send_is_not_told_so() -> None:
    with serving({"tiny": {"model": TINY}}, max_body_bytes=2000) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            head = "Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 5000000"
            connection.sendall(f"POST /rank HTTP/1.1\r\nHost: {host}\r\n{head}\r\n\r\n".encode())
            answer = b""
            while received := connection.recv(4096):
                answer += received
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
