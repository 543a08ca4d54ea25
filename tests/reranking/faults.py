"""A proxy before the S3 server that fails as stores and networks do."""

import http.client
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class Faults:
    """What goes wrong: shares (0 to 1) of requests, drawn from a seeded generator."""

    def __init__(self, seed: int = 0) -> None:
        self.error = self.cut_before = self.cut_after = self.slow = 0.0
        self.slow_s = 0.0
        self.expired_keys: set[str] = set()
        """Access keys that the store takes for expired."""
        self.keys: set[str] = set()
        """Access keys that came."""
        self.injected = 0
        self._once: list[tuple[str, Callable[[], None]]] = []
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def once(self, text: str, act: Callable[[], None]) -> None:
        """Call `act` at the first request whose path contains `text`."""
        self._once.append((text, act))

    def see(self, path: str) -> None:
        with self._lock:
            due = [entry for entry in self._once if entry[0] in path]
            self._once = [entry for entry in self._once if entry not in due]
        for _, act in due:
            act()

    def draw(self) -> str | None:
        with self._lock:
            place = self._random.random()
            for kind in ("error", "cut_before", "cut_after", "slow"):
                place -= getattr(self, kind)
                if place < 0:
                    self.injected += 1
                    return kind
        return None


@contextmanager
def faulty_proxy(endpoint: str, faults: Faults) -> Iterator[str]:
    """The URL of a proxy to `endpoint`, with the faults."""
    server = _Proxy(urlsplit(endpoint).netloc, faults)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: str, faults: Faults) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.address, self.faults = address, faults

    def handle_error(self, *_: Any) -> None:  # clients go away, that is the point
        pass


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Proxy

    def log_message(self, *_: Any) -> None:
        pass

    def _handle(self) -> None:
        faults, body = self.server.faults, self.rfile.read(int(self.headers.get("Content-Length", 0)))
        faults.see(self.path)
        signed = self.headers.get("Authorization", "")
        faults.keys.add(signed.partition("Credential=")[2].partition("/")[0])
        if any(f"Credential={key}/" in signed for key in faults.expired_keys):
            self._answer(400, {}, _error("ExpiredToken", "The provided token has expired."))
            return
        kind = faults.draw()
        if kind == "error":
            self._answer(503, {}, _error("ServiceUnavailable", "try again"))
        elif kind == "cut_before":
            self.close_connection = True
        else:
            time.sleep(faults.slow_s if kind == "slow" else 0)
            self._forward(body, cut=kind == "cut_after")

    def _forward(self, body: bytes, cut: bool) -> None:
        # Closed also where the client, whom the answer goes to, has left.
        with closing(http.client.HTTPConnection(self.server.address, timeout=60)) as store:
            store.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                store.putheader(name, value)
            store.endheaders(body)
            answer = store.getresponse()
            self._answer(answer.status, dict(answer.getheaders()), answer.read(), cut)

    def _answer(self, status: int, headers: dict[str, str], data: bytes, cut: bool = False) -> None:
        """cut: half of the body; half of the head, where there is no body."""
        is_head = self.command == "HEAD"
        length = headers.get("Content-Length", "0") if is_head else str(len(data))
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.close_connection = self.close_connection or cut
        if cut and len(data) < 2:
            return
        self.end_headers()
        if not is_head:  # whose answer has no body: the next one would begin with it
            self.wfile.write(data[: len(data) // 2] if cut else data)

    # The names that the class calls.
    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815  (the names that the base class calls)


def _error(code: str, message: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
