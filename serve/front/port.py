"""Ray Serve's proxies share a port with whatever else listens there; ours don't."""

import asyncio
import socket
import time
from typing import Any

from ray.serve._private import proxy
from ray.serve._private.http_util import start_asgi_http_server

from pipeline import log
from pipeline.errors import ConfigError

_STARTS = "start_asgi_http_server"
"""The proxy's name for what it calls to listen."""
_ENDS_S = 5.0
"""A proxy that Ray replaces listens until it has ended."""
_ASKED_AGAIN_S = 0.2


async def _start_alone(app: Any, http_options: Any, **options: Any) -> Any:
    """Ray's, but for a port that is in use. Raises ConfigError."""
    end = time.monotonic() + _ENDS_S
    while True:
        try:
            check_free(http_options.host, http_options.port)
            break
        except ConfigError as error:
            if time.monotonic() > end:
                log.warning("the endpoint can't listen", reason=str(error))
                raise
        await asyncio.sleep(_ASKED_AGAIN_S)
    return await start_asgi_http_server(app, http_options, **options)


def share_no_port() -> None:
    """Have the proxy of this process refuse a port on which another process listens.

    Ray sets SO_REUSEPORT: a second endpoint on one port would start without a word, and get half of the
    connections of the first.
    """
    assert _STARTS in vars(proxy), "another Ray has another name for it"
    vars(proxy)[_STARTS] = _start_alone


def check_free(host: str, port: int) -> None:
    """Raises ConfigError where another process listens there, and where there is no such address here."""
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what is left of an endpoint that ended
        try:
            probe.bind(address)
        except OSError as error:
            raise ConfigError(
                f"http_options.port: {host}:{port}: {error.strerror}. Another endpoint may listen there: stop"
                " it, or set another http_options.port"
            ) from error
