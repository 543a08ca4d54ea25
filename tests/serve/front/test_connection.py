"""Connections that send what no client should."""

import json
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import httpx2
import pytest

from serve.front import connection
from tests.conftest import TINY
from tests.serve.local import LocalServer, serving

BODY = b'{"query": "q", "texts": ["a", "b"]}'
HEAD = b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(
    BODY
)


@pytest.fixture(scope="module")
def hasty() -> Iterator[LocalServer]:
    """Half a second for a head, two for a request."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "HEAD_TIMEOUT_S", 0.5)
        with serving({"tiny": {"model": TINY}}, timeout_s=2) as made:
            yield made


@contextmanager
def connected(server: LocalServer) -> Iterator[socket.socket]:
    address = httpx2.URL(server.url)
    with socket.create_connection((address.host, address.port or 0), timeout=10) as made:
        yield made


def received(made: socket.socket) -> bytes:
    """Until the server closes."""
    answer = b""
    while piece := made.recv(65536):
        answer += piece
    return answer


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"\r\n", b""),
        (b"P", b"HTTP/1.1 408 "),
        (HEAD, b"HTTP/1.1 408 "),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: ", b"HTTP/1.1 408 "),
    ],
)
def test_a_head_that_does_not_end_is_not_waited_for(hasty: LocalServer, sent: bytes, answer: bytes) -> None:
    begin = time.monotonic()
    with connected(hasty) as made:
        made.sendall(sent)
        assert received(made)[:13] == answer
    assert 0.4 < time.monotonic() - begin < 5


def send_on(made: socket.socket, pieces: Iterable[bytes], pause_s: float) -> None:
    """Raises ConnectionError where the server has closed."""
    for piece in pieces:
        made.sendall(piece)
        time.sleep(pause_s)


def test_bytes_that_drip_hold_it_no_longer(hasty: LocalServer) -> None:
    begin = time.monotonic()
    with connected(hasty) as made, pytest.raises(ConnectionError):
        send_on(made, [b"\r\n"] * 100, 0.1)
    assert time.monotonic() - begin < 5


def test_a_second_head_has_the_same_time(hasty: LocalServer) -> None:
    with connected(hasty) as made:
        made.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert _one_answer(made, b"}").startswith(b"HTTP/1.1 200 ")
        begin = time.monotonic()
        made.sendall(b"GET /hea")
        assert received(made).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - begin < 5


LARGE = b"%x\r\n%s\r\n" % (200_000, b" " * 200_000)


@pytest.mark.parametrize(
    "framing",
    [
        b"",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n%s0\r\n" % LARGE,
    ],
)
def test_heads_and_trailers_without_end_are_cut_off(hasty: LocalServer, framing: bytes) -> None:
    fields = (b"X-%d: " % number + b"a" * 1000 + b"\r\n" for number in range(1000))
    with connected(hasty) as made:
        made.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + framing)
        with pytest.raises(ConnectionError):
            send_on(made, fields, 0.001)


def test_a_body_in_chunks_of_one_byte_is_none_of_these(hasty: LocalServer) -> None:
    body = BODY + b" " * 20_000
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    with connected(hasty) as made:
        made.sendall(HEAD.partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        made.sendall(b"0\r\n\r\n")
        assert _one_answer(made).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "offer",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIA\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
        b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
        b"Upgrade: h2c\r\n",
        b"connection: upgrade\r\nConnection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n",
    ],
)
def test_an_offer_to_upgrade_is_passed_over_and_the_request_served(hasty: LocalServer, offer: bytes) -> None:
    whole = HEAD + offer + b"\r\n" + BODY
    with connected(hasty) as made:
        for _ in range(2):  # and the connection goes on
            made.sendall(whole)
            answer = _one_answer(made)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert {entry["index"] for entry in json.loads(answer.partition(b"\r\n\r\n")[2])} == {0, 1}
        made.sendall(whole[:-5])  # in pieces, too
        time.sleep(0.1)
        made.sendall(whole[-5:])
        assert _one_answer(made).startswith(b"HTTP/1.1 200 ")


def _one_answer(made: socket.socket, end: bytes = b"]") -> bytes:
    answer = b""
    while not answer.endswith(end):
        piece = made.recv(65536)
        assert piece, answer
        answer += piece
    return answer


def test_a_client_that_wants_the_connection_closed_still_does_with_an_upgrade(hasty: LocalServer) -> None:
    with connected(hasty) as made:
        made.sendall(HEAD + b"Connection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n" + BODY)
        assert received(made).startswith(b"HTTP/1.1 200 ")


def test_requests_in_one_piece_are_answered_in_turn(hasty: LocalServer) -> None:
    get = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    upgrade = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    with connected(hasty) as made:
        made.sendall((get + upgrade) * 20 + get.replace(b"Host: x", b"Connection: close"))
        assert received(made).count(b"HTTP/1.1 200 ") == 41


def test_what_was_asked_before_nonsense_is_answered_first(hasty: LocalServer) -> None:
    with connected(hasty) as made:
        made.sendall(HEAD + b"\r\n" + BODY + b"nonsense\r\n\r\n")
        answer = received(made)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer
        assert answer.endswith(b"]")


@pytest.mark.parametrize(
    "sent",
    [
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
        b"POST /rank HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /rerank HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: b\r\n c\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    ],
)
def test_what_is_no_request_is_a_400_and_ends_the_connection(hasty: LocalServer, sent: bytes) -> None:
    with connected(hasty) as made:
        made.sendall(sent)
        answer = received(made)
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 ", b"HTTP/1.1 415 ")), answer
