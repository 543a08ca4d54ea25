"""Where a cluster is that runs already, and whether a Ray answers there."""

import os
import socket
import time
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

import grpc

from pipeline.errors import ConfigError, TemporaryError
from pipeline.plain_file import open_plain
from pipeline.ray_folder import folder, unusable

_HTTP = ("http", "https")
_PATIENCE_S = 15.0
"""For a head that has just been started."""
_HTTP2_HEAD_BYTES, _HTTP2_SETTINGS = 9, b"\x04"
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _HTTP2_SETTINGS + bytes(5)
"""RFC 9113, section 3.4: a fixed text, and a frame of settings, here without any. A server answers with its
own; the type stands behind the three bytes of a frame's length."""
_IS_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""What a head answers to whoever has its token, if it asks for one."""
WHERE_RAY_LOOKS = "RAY_AUTH_TOKEN or ~/.ray/auth_token, as on the machine of its head"
"""For a token."""


class Address(NamedTuple):
    value: str
    source: str
    """Where it stands, for messages."""
    without: str
    """How to do without that cluster."""


def address() -> Address | None:
    """Of the cluster that Ray joins; None where none is known, and Ray looks for one or starts one.

    Raises ConfigError where what `ray start` left on this machine can't be read.
    """
    value = os.environ.get("RAY_ADDRESS", "")
    if value not in ("", "auto", "local"):
        return Address(value, "RAY_ADDRESS", "unset RAY_ADDRESS")
    if value == "local":
        return None
    made_here = folder() / "ray_current_cluster"
    try:
        with open_plain(made_here) as stream:
            told = stream.read().decode(errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unusable(f"{made_here}: {error.strerror}") from error
    return Address(told, str(made_here), "remove that file, as `ray stop` does,")


def check_that_it_answers(address: Address) -> None:
    """Raises TemporaryError where nothing does, ConfigError where something else than Ray does, or a Ray that
    asks for a token and will get none.

    Ray itself would ask for half an hour, in silence.
    """
    place = _host_and_port(address)
    deadline = time.monotonic() + _PATIENCE_S

    def no_cluster(why: object) -> str:
        return (
            f"{address.source} {address.value}: no cluster answers there ({why}); start it, or"
            f" {address.without} to work on this machine alone"
        )

    while True:
        try:
            if not _speaks_grpc(place, timeout=max(1, deadline - time.monotonic())):
                raise ConfigError(no_cluster("what listens there is no Ray: it does not speak gRPC"))
        except OSError as error:
            if time.monotonic() >= deadline:
                raise TemporaryError(no_cluster(error)) from error
            time.sleep(1)
        else:
            break
    # To an address that it is told Ray sends a token only if it is told that, too.
    sends_one = address.source != "RAY_ADDRESS" or os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    if not sends_one and not _uses_tls() and _asks_for_a_token(place):
        raise ConfigError(
            f"{address.source} {address.value}: that cluster asks for a token; set RAY_AUTH_MODE=token, and"
            f" have its token in {WHERE_RAY_LOOKS}"
        )


def _speaks_grpc(place: tuple[str, int], timeout: float) -> bool:
    """As all servers of Ray do, and so HTTP/2. Raises OSError where nothing answers."""
    with socket.create_connection(place, timeout) as connection:
        if _uses_tls():
            return True  # such a server talks to none without a certificate; Ray has one
        connection.sendall(_HTTP2_GREETING)
        with connection.makefile("rb") as stream:
            return stream.read(_HTTP2_HEAD_BYTES)[3:4] == _HTTP2_SETTINGS


def _uses_tls() -> bool:
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def _asks_for_a_token(place: tuple[str, int]) -> bool:
    """Ray itself would try for 20 s, and end with a traceback."""
    host, port = place
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(_IS_ALIVE)(b"", timeout=_PATIENCE_S)
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNAUTHENTICATED
    return False


def _host_and_port(address: Address) -> tuple[str, int]:
    split = urlsplit(address.value if "://" in address.value else f"//{address.value}")
    with suppress(ValueError):  # no number
        if split.hostname and split.port and not split.scheme:
            return split.hostname, split.port
    of_jobs = "; a job is submitted to that one with `ray job submit`" if split.scheme in _HTTP else ""
    if split.scheme == "ray":
        of_jobs = "; over ray://, Ray Client's, Ray Data does not run: start the command on a machine of the"
        of_jobs += " cluster, or submit it with `ray job submit`"
    raise ConfigError(
        f"{address.source} {address.value!r}: is no address of a cluster, such as head:6379{of_jobs}"
    )
