"""A port on which something listens already."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from ray.serve._private import proxy
from ray.serve.config import HTTPOptions

from pipeline.errors import ConfigError
from serve.front import port as front_port
from tests.own_ray import free_port

STARTS = "start_asgi_http_server"


@contextmanager
def endpoint(port: int) -> Iterator[None]:
    """What listens as Ray Serve's proxies do."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen()
        yield


async def app(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"here"})


async def started(port: int) -> str:
    """What a proxy answers that Ray starts as its own code does."""
    options = HTTPOptions(host="127.0.0.1", port=port, middlewares=[])
    serving, server = await vars(proxy)[STARTS](
        app, options, event_loop=asyncio.get_running_loop(), enable_so_reuseport=True
    )
    try:
        async with httpx2.AsyncClient() as client:
            while not server.started:
                await asyncio.sleep(0.01)
            return (await client.get(f"http://127.0.0.1:{port}")).text
    finally:
        server.should_exit = True
        await serving


def test_a_second_endpoint_on_a_port_is_refused_and_a_next_one_is_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(vars(proxy), STARTS, vars(proxy)[STARTS])  # put back at the end
    monkeypatch.setattr(front_port, "_ENDS_S", 0)
    front_port.share_no_port()
    port = free_port()
    message = rf"http_options\.port: 127\.0\.0\.1:{port}: Address already in use\. .* stop it, or set another"
    with endpoint(port), pytest.raises(ConfigError, match=message):
        asyncio.run(started(port))
    assert "the endpoint can't listen" in caplog.text
    assert [asyncio.run(started(port)) for _ in range(2)] == ["here", "here"]


def test_a_proxy_waits_for_the_one_that_it_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(proxy), STARTS, vars(proxy)[STARTS])
    monkeypatch.setattr(front_port, "_ENDS_S", 600)
    front_port.share_no_port()
    port = free_port()

    async def replaced() -> str:
        with endpoint(port):
            starting = asyncio.create_task(started(port))
            await asyncio.sleep(0.5)
            assert not starting.done()
        return await starting

    assert asyncio.run(replaced()) == "here"


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.77:\d+: Cannot assign requested address"):
        front_port.check_free("192.0.2.77", free_port())
