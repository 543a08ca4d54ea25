"""A port on which something listens already; tests/serve/test_run.py has two real endpoints."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from ray.serve._private import http_util
from ray.serve.config import HTTPOptions

from pipeline.errors import ConfigError
from serve.front import port
from serve.front.port import share_no_port
from tests.ports import free_port

SHARES = "set_socket_reuse_port"


@pytest.fixture(autouse=True)
def sharing_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(http_util), SHARES, vars(http_util)[SHARES])  # put back at the end
    share_no_port()


@contextmanager
def listener(number: int, *options: int) -> Iterator[None]:
    with socket.socket() as listening:
        for option in options:
            listening.setsockopt(socket.SOL_SOCKET, option, 1)
        listening.bind(("127.0.0.1", number))
        listening.listen()
        yield


async def app(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"here"})


async def started(number: int, host: str = "127.0.0.1") -> str:
    """What a proxy answers that Ray starts as its own code does."""
    options = HTTPOptions(host=host, port=number, middlewares=[])
    serving, server = await http_util.start_asgi_http_server(
        app, options, event_loop=asyncio.get_running_loop(), enable_so_reuseport=True
    )
    try:
        async with httpx2.AsyncClient() as client:
            while not server.started:
                await asyncio.sleep(0.01)
            return (await client.get(f"http://127.0.0.1:{number}")).text
    finally:
        server.should_exit = True
        await serving


@pytest.mark.parametrize(
    "options",
    [(), (socket.SO_REUSEADDR,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)],
    ids=["a program", "a server", "Ray Serve's proxy"],
)
def test_a_port_on_which_something_listens_is_refused(options: tuple[int, ...]) -> None:
    taken = free_port()
    message = (
        rf"http_options\.port: 127\.0\.0\.1:{taken}: Address already in use\. .* stop it, or set another"
        r" http_options\.port\. If Ray goes on, .* `serve shutdown -y -a http://"
    )
    with listener(taken, *options), pytest.raises(ConfigError, match=message):
        asyncio.run(started(taken))


def test_a_port_that_the_config_does_not_have_is_told_by_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = free_port()
    monkeypatch.setattr(port, "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", taken)
    message = rf"RAY_SERVE_FALLBACK_PROXY_HTTP_PORT: 127\.0\.0\.1:{taken}: Address already in use\."
    with listener(taken), pytest.raises(ConfigError, match=message):
        asyncio.run(started(taken))


def test_a_next_endpoint_takes_the_port_of_one_that_ended() -> None:
    free = free_port()
    assert [asyncio.run(started(free)) for _ in range(2)] == ["here", "here"]


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.77:\d+: Cannot assign requested address"):
        asyncio.run(started(free_port(), "192.0.2.77"))
