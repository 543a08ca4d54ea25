"""Ray Serve's proxies share a port with whatever else listens there; ours don't."""

import socket
from collections.abc import Callable
from typing import Any

from ray._private.services import get_webui_url_from_internal_kv
from ray.experimental import internal_kv
from ray.serve._private import http_util
from ray.serve._private.constants import RAY_SERVE_FALLBACK_PROXY_HTTP_PORT

from pipeline.errors import ConfigError

_SHARES = "set_socket_reuse_port"
"""What a proxy calls for the socket that it is about to bind. It is looked up there at each call. The proxy's
own globals would be the wrong place: Ray ships its class as a copy, which knows nothing of this process."""
_BEHIND_HAPROXY = "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"
"""The variable with the port of the proxy that Ray has besides HAProxy: 8500 of itself, whatever the
config's port is."""


class _Alone(socket.socket):
    """Says in our words why it can't be bound. Ray leaves the cause out."""

    __slots__ = ()

    def bind(self, address: Any) -> None:
        """Raises ConfigError where another process listens there, and where there is no such address here."""
        try:
            super().bind(address)
        except OSError as error:
            self.close()
            host, port, *_ = address
            field, again = "http_options.port", _before_another_start()
            if port == RAY_SERVE_FALLBACK_PROXY_HTTP_PORT:
                field, again = _BEHIND_HAPROXY, ""
            raise ConfigError(
                f"{field}: {host}:{port}: {error.strerror}. Another endpoint or program may listen there:"
                f" stop it, or set another {field}{again}"
            ) from error


def _before_another_start() -> str:
    """Serve reads its http_options once. Where Ray goes on, it would try this port again, whatever a next
    `serve run -a` says.
    """
    has_ray: Callable[[], bool] = internal_kv._internal_kv_initialized  # Ray 2.60 gives these no types
    told: Callable[[], str | None] = get_webui_url_from_internal_kv
    dashboard = (told() if has_ray() else None) or "DASHBOARD"
    return (
        ". If Ray goes on, as after `serve run -a`, its Serve keeps this port: run `serve shutdown -y -a"
        f" http://{dashboard}` before you start it again"
    )


def share_no_port() -> None:
    """Have the proxy of this process refuse a port on which another process listens.

    Ray sets SO_REUSEPORT: a second endpoint on one port would start without a word, and get half of the
    connections of the first. With Ray's own SERVE_SOCKET_REUSE_PORT_ENABLED=0 a restart would wait a minute
    for what is left of old connections, and nobody would be told the cause. HAProxy refuses by itself.
    """
    assert _SHARES in vars(http_util), "another Ray has another name for it"
    vars(http_util)[_SHARES] = _bind_alone


def _bind_alone(listening: socket.socket) -> bool:
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what is left of an endpoint that ended
    listening.__class__ = _Alone
    return True
