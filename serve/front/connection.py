"""A connection of uvicorn's that no half-sent request holds open, and that no upgrade leads astray."""

import asyncio

import httptools
from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_TIMEOUT_S = 10.0
"""From a connection's start, or a request's first byte, to the end of its head. uvicorn has no such limit."""
MAX_OVERHEAD_BYTES = 65_536
"""What a request may have beside its body: head and trailers, which the parser keeps without a limit."""
_FRAMING = 8
"""Bytes beside each byte of a body that is sent in chunks of one."""
_UPGRADE = {b"upgrade", b"http2-settings"}
"""Headers, and what Connection says of them."""


class Connection(HttpToolsProtocol):
    """Speaks HTTP/1.1 alone.

    A request that offers an upgrade is served as it is, as RFC 9110 (7.8) has it. uvicorn would drop its body
    (h2c), or take it for the handshake of a WebSocket and never answer.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it, too
        super().connection_made(transport)
        self._overhead = 0
        self._in_head = False
        self._late: asyncio.TimerHandle | None = None
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._overhead += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(b"400 Bad Request")
        if self._overhead > MAX_OVERHEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large")
        if self._late is None and not self._is_answering:
            self._expect_head()

    def _feed(self, data: bytes) -> None:
        """Raises HttpParserError."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
            else:
                return

    def _head_without_upgrade(self) -> bytes:
        """The request's head, as it would be without the offer. Raises HttpParserError for CONNECT."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise httptools.HttpParserError("this is no proxy")
        lines = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                kept = [token for token in value.split(b",") if token.strip().lower() not in _UPGRADE]
                lines.append(b"connection:" + b",".join(kept))
            elif name not in _UPGRADE:
                lines.append(name + b":" + value)
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        self._overhead = 0
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else a trailer, which would be one of the headers without being seen as such
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self.parser.should_upgrade():
            self._in_head = False
            self._head_is_here()
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._overhead = max(
            0, self._overhead - len(body) * (1 + _FRAMING)
        )  # a large body makes no room for trailers
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    @property
    def _is_answering(self) -> bool:
        # uvicorn's type does not say that there may be none yet.
        return self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]

    def _expect_head(self) -> None:
        if not self.transport.is_closing():
            self._late = self.loop.call_later(HEAD_TIMEOUT_S, self._end)

    def _head_is_here(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _end(self) -> None:
        if self._in_head:
            self._refuse(b"408 Request Timeout")
        else:  # an answer would pass for one to the request that the client is about to send
            self.transport.close()

    def _refuse(self, status: bytes) -> None:
        """End the connection, after the answers to what was asked before."""
        if self._is_answering and not self.cycle.more_body:
            self.cycle.keep_alive = False
            return
        if not self._is_answering or not self.cycle.response_started:
            self.transport.write(b"HTTP/1.1 %b\r\nconnection: close\r\ncontent-length: 0\r\n\r\n" % status)
        self.transport.close()


def guard_connections() -> None:
    """Have every uvicorn of this process that starts from now on use this class.

    Ray Serve, which starts it, has no option for a protocol; `auto` is where uvicorn looks up its default.
    """
    auto.AutoHTTPProtocol = Connection
