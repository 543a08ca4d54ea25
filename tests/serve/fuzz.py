"""Requests as no client should send them, on raw sockets, and what must hold whatever is sent."""

import asyncio
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

PATHS = [
    "/rerank",
    "/v1/rerank",
    "/v2/rerank",
    "/rank",
    "/score",
    "/info",
    "/health",
    "/nowhere",
    "/%C3%A9%0a%00",
]
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_KEPT_S = 3.0
"""A connection that is silent for so long after an answer waits for the next request."""
_CLOSED = (ConnectionError, BrokenPipeError)


class Shot(NamedTuple):
    """What goes over one connection, piece by piece."""

    kind: str
    pieces: list[bytes]
    leaves: bool = False
    """The client closes as soon as it has sent."""


def _body(random_: random.Random, path: str) -> bytes:
    texts = ["a" * random_.randrange(30) for _ in range(random_.randrange(4))]
    of_others = {"texts": texts, "documents": texts, "text_1": "q", "text_2": texts}
    fields = {"query": "q", "passages": texts} | ({} if path == "/rank" else of_others)
    valid = json.dumps(fields).encode()
    odd = [b"", b"{", b"[" * 100_000, b'{"query": NaN}', b"\xff\xfe", b'"\\ud800"', random_.randbytes(200)]
    return valid if random_.random() < 0.7 else random_.choice(odd)


def _request(random_: random.Random, *extra: bytes, length: int | None = None) -> bytes:
    """length: what Content-Length says in place of the truth."""
    path = random_.choice(PATHS)
    body = _body(random_, path)
    lines = [
        b"%b %b HTTP/1.1" % (random_.choice([b"POST"] * 8 + [b"GET", b"PUT", b"OPTIONS"]), path.encode()),
        b"Host: x",
        b"Content-Type: application/json",
        *extra,
        b"Content-Length: %d" % (len(body) if length is None else length),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _in_pieces(random_: random.Random, whole: bytes) -> list[bytes]:
    cuts = sorted(random_.randrange(len(whole) + 1) for _ in range(random_.randrange(4)))
    return [whole[first:last] for first, last in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


def _mutated(random_: random.Random, whole: bytes) -> bytes:
    changed = bytearray(whole)
    for _ in range(random_.randrange(1, 6)):
        changed[random_.randrange(len(changed))] = random_.randrange(256)
    return bytes(changed)


def _odd_headers(random_: random.Random) -> Iterable[bytes]:
    odd = bytes(random_.choice([*range(32, 127), *range(128, 256), 9]) for _ in range(random_.randrange(60)))
    names = [b"X-Request-ID", b"Authorization", b"X-Request-Timeout-Seconds", b"serve_multiplexed_model_id"]
    names += [
        b"x-session-id",
        b"Accept",
        b"Cookie",
        b"traceparent",
        b"Expect",
        b"X-Request-Disconnect-Disabled",
    ]
    yield random_.choice(names) + b": " + odd


def _upgrade(random_: random.Random) -> Iterable[bytes]:
    yield b"Connection: " + random_.choice([b"Upgrade", b"upgrade, http2-settings", b"keep-alive, Upgrade"])
    yield b"Upgrade: " + random_.choice([b"websocket", b"h2c", b"TLS/1.0", b"x", b""])
    if random_.random() < 0.5:
        yield b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="


def _chunked(random_: random.Random) -> bytes:
    sizes = [b"5", b"5;a=b", b"zz", b"-1", b"ffffffffffffffffff", b"0", b""]
    chunks = b"".join(random_.choice(sizes) + b"\r\n12345\r\n" for _ in range(random_.randrange(4)))
    head = b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return (
        head
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + chunks
        + random_.choice([b"", b"0\r\n\r\n", b"0\r\nX: y\r\n"])
    )


_KINDS: dict[str, Callable[[random.Random], list[bytes]]] = {
    "valid": lambda r: _in_pieces(r, _request(r)),
    "stopped body": lambda r: [_request(r, length=r.randrange(1_000, 100_000))],
    "too short a length": lambda r: [_request(r, length=r.randrange(10))],
    "stopped head": lambda r: [(whole := _request(r))[: r.randrange(whole.index(b"\r\n\r\n"))]],
    "chunks": lambda r: _in_pieces(r, _chunked(r)),
    "upgrade": lambda r: _in_pieces(r, _request(r, *_upgrade(r))),
    "odd header": lambda r: [_request(r, *_odd_headers(r))],
    "random bytes": lambda r: [r.randbytes(r.randrange(1, 2000))],
    "mutated": lambda r: [_mutated(r, _request(r))],
    "pipelined": lambda r: [b"".join(_request(r, *_upgrade(r)) for _ in range(r.randrange(2, 8)))],
}


def shots(seed: int, count: int) -> Iterable[Shot]:
    random_ = random.Random(seed)
    for number in range(count):
        kind = list(_KINDS)[number % len(_KINDS)]
        yield Shot(kind, _KINDS[kind](random_), leaves=random_.random() < 0.1)


@dataclass
class Outcome:
    """Of all shots."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By kind of shot. 0: closed without an answer."""
    wrong: list[tuple[Shot, bytes]] = field(default_factory=list)
    """Answered with 5xx, or not at all where that must be."""
    oldest_s: float = 0.0
    """Of the connections, until the server closed."""


async def fire(host: str, port: int, all_shots: Iterable[Shot], at_once: int, patience_s: float) -> Outcome:
    """patience_s: how long a connection may be open."""
    outcome, gate = Outcome(), asyncio.Semaphore(at_once)

    async def one(shot: Shot) -> None:
        async with gate:
            begin = time.monotonic()
            answer, closed = await _sent(host, port, shot, patience_s)
            if shot.leaves:
                return
            outcome.oldest_s = max(outcome.oldest_s, time.monotonic() - begin)
            statuses = [int(status) for status in _STATUS.findall(answer)] or [0]
            outcome.statuses.update((shot.kind, status) for status in statuses)
            if not closed or max(statuses) >= 500 or (shot.kind == "valid" and statuses == [0]):
                outcome.wrong.append((shot, answer))

    await asyncio.gather(*map(one, all_shots))
    return outcome


async def _read(reader: asyncio.StreamReader, silence_s: float) -> bytes:
    """Empty at the end, or after so much silence."""
    try:
        async with asyncio.timeout(silence_s):
            return await reader.read(65536)
    except TimeoutError:
        return b""


async def _sent(host: str, port: int, shot: Shot, patience_s: float) -> tuple[bytes, bool]:
    """What came back, and whether the server closed the connection in time, or keeps it after an answer."""
    reader, writer = await asyncio.open_connection(host, port)
    answer, closed = b"", True
    try:
        async with asyncio.timeout(patience_s):
            for piece in shot.pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
            while not shot.leaves and (piece := await _read(reader, _KEPT_S if answer else 2 * patience_s)):
                answer += piece
    except _CLOSED:
        pass
    except TimeoutError:
        closed = bool(answer)
    writer.close()
    return answer, closed
