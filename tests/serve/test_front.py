"""What every request passes: ids, the log, timings, and what is told of errors."""

import logging
import socket
from typing import Any

import httpx2
import pytest

from tests.conftest import TINY
from tests.serve.local import LocalServer, eventually, serving

SECRET = "the secret of the user"
BODY = {"query": SECRET, "texts": [SECRET, "hi"]}


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
