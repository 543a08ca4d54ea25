"""The Ray cluster: joining one, quietly, and refusing a job that it can't hold."""

import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import grpc
import ray
from ray.data import DataContext
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import AuthenticationError, RayError

from pipeline import log, own_ray
from pipeline.capacity import Node, described, fit, nodes, wait_for_one
from pipeline.errors import ConfigError, RayrankError, TemporaryError
from pipeline.interruption import raise_on_sigterm
from pipeline.placement import ActorsConfig
from pipeline.scoring.config import Dtype, ScorerConfig

_HERE = ("", "local")
"""Values of RAY_ADDRESS with which Ray works on this machine."""
_HTTP = ("http", "https")
_PATIENCE_S = 15.0
"""For a head that has just been started."""
_QUIET_S = 10.0
"""For a task on an idle cluster, which has to start a worker."""
_HTTP2_HEAD_BYTES, _HTTP2_SETTINGS = 9, b"\x04"
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _HTTP2_SETTINGS + bytes(5)
"""RFC 9113, section 3.4: a fixed text, and a frame of settings, here without any. A server answers with its
own; the type stands behind the three bytes of a frame's length."""
_TOO_SLOW = "timed out during startup"
"""Of Ray's message (ray._private.node)."""
_IS_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""What a head answers to whoever has its token, if it asks for one."""
_WHERE_RAY_LOOKS = "RAY_AUTH_TOKEN or ~/.ray/auth_token, as on the machine of its head"
"""For a token."""


def connect(pools: Sequence[ActorsConfig], largest_shard_pairs: int, *, encodes: bool = True) -> None:
    """Join a cluster as `join` does, for the actors of all pools.

    encodes: as in `capacity.fit`. Raises ConfigError where this machine can't hold them, TemporaryError where
    a cluster elsewhere can't hold one of each when `wait_s` is over: nodes may still come.
    """
    # Ray ends a job that shows no progress in 30 minutes; a large shard on a slow device is healthy work.
    join(no_progress_s=max(1800, 2 * largest_shard_pairs))
    try:  # Ray checks a selector's form as soon as something carries it
        for actors in pools:
            ray.remote(label_selector=actors.label_selector)(raise_on_sigterm)
    except ValueError as error:
        raise ConfigError(f"actors.label_selector: {error}") from error
    # A cluster elsewhere may scale, and have no such node yet.
    if os.environ.get("RAY_ADDRESS", "") not in _HERE:
        wait_for_one(*pools, encodes=encodes)
    elif lack := fit(nodes(), *pools, encodes=encodes).lack:
        raise ConfigError(lack)


def fastest_dtypes(scorers: Sequence[ScorerConfig], pools: Sequence[ActorsConfig]) -> list[Dtype]:
    """What `dtype: auto` is where an actor of each scorer's pool may run: this process may have another chip.

    Ray must be joined: `connect`. Raises ModelError where an actor has no such device.
    """
    asked = [
        ray.remote(_fastest_dtype)
        .options(num_cpus=actors.num_cpus, num_gpus=actors.num_gpus, label_selector=actors.label_selector)
        .remote(scorer.device)
        for scorer, actors in zip(scorers, pools, strict=True)
    ]
    with own_errors():
        if ray.wait(asked, num_returns=len(asked), timeout=_QUIET_S)[1]:
            log.warning("waiting for room for an actor", why="other work has what of the cluster it takes")
        return ray.get(asked)


def _fastest_dtype(device: str) -> Dtype:
    # Here and not above: commands that score nothing need no torch.
    from pipeline.scoring.dtype import fastest_dtype  # noqa: PLC0415  (see above)

    return fastest_dtype(device)


def describe(pools: Sequence[ActorsConfig]) -> str:
    """The cluster that `connect` would join, and what it lacks. Starts none, waits for none to grow."""
    try:
        if _starts_one():
            lack = fit(
                [_this_machine()], *(pool.model_copy(update={"label_selector": {}}) for pool in pools)
            ).lack
            would = f"be too small on this machine: {lack}" if lack else "be started on this machine"
            return f"none that runs now: one would {would}"
        join(no_progress_s=1800)
    # The rest of a plan is worth reading where no cluster is at hand.
    except (ConfigError, TemporaryError) as error:
        return str(error)
    found = nodes()
    if lack := fit(found, *pools).lack:
        return lack
    return f"{described(found)}, enough for actors.min"


def start_early() -> None:
    """Where `join` would start a Ray, begin to: as `own_ray.start_early`."""
    if _starts_one():
        own_ray.start_early()


def _starts_one() -> bool:
    return not ray.is_initialized() and _address() is None and os.environ.get("RAY_ADDRESS") != "auto"


def _this_machine() -> Node:
    """A Ray that is started here has no more than this."""
    from torch.cuda import device_count  # noqa: PLC0415  (commands that score nothing need no torch)

    return Node(os.cpu_count() or 1, device_count(), {})


def join(no_progress_s: int) -> None:
    """Join the cluster that Ray finds (RAY_ADDRESS, or one on this machine), or start one here."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    # Else Ray wraps what a stage raises, and our errors arrive as text.
    context.raise_original_map_exception = True
    context.execution_no_progress_timeout_s = no_progress_s
    # What Ray would log of a failure is raised here as well, and told once.
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if own_ray.is_starting() or not ray.is_initialized():
        _join_or_start()
    raise_on_sigterm()  # Ray sets a handler of its own, which would end the process at once


class _Address(NamedTuple):
    value: str
    source: str
    """Where it stands, for messages."""
    without: str
    """How to do without that cluster."""


def _address() -> _Address | None:
    """Of the cluster that Ray joins; None where none is known, and Ray looks for one or starts one."""
    value = os.environ.get("RAY_ADDRESS", "")
    if value not in ("", "auto", "local"):
        return _Address(value, "RAY_ADDRESS", "unset RAY_ADDRESS")
    made_here = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()), "ray/ray_current_cluster")
    if value == "local" or not made_here.exists():
        return None
    return _Address(made_here.read_text().strip(), str(made_here), "remove that file, as `ray stop` does,")


def _join_or_start() -> None:
    """Join the cluster at RAY_ADDRESS, or one that `ray start` made on this machine, or start one here."""
    if not own_ray.is_starting() and (address := _address()) is not None:
        _check_that_it_answers(address)
        try:
            # What Ray's C++ parts say of a cluster that dies, the driver with it, is all that anyone hears.
            ray.init(log_to_driver=False, logging_level=logging.CRITICAL)
        except AuthenticationError as error:
            raise ConfigError(
                f"RAY_AUTH_MODE=token: no token is here; put the cluster's into {_WHERE_RAY_LOOKS}"
            ) from error
        except ConnectionError as error:
            raise TemporaryError(
                f"{address.source} {address.value}: can't be joined ({error}). If InvalidAuthToken stands"
                f" above, the token here is not the cluster's: put that into {_WHERE_RAY_LOOKS}"
            ) from error
        return
    try:
        own_ray.start()
    except ConnectionError as error:
        if os.environ.get("RAY_ADDRESS") != "auto":
            raise
        raise TemporaryError(
            "RAY_ADDRESS auto: no cluster runs on this machine; start it, or unset RAY_ADDRESS"
        ) from error
    except Exception as error:  # Ray has no class of its own for it
        if _TOO_SLOW not in str(error):
            raise
        raise TemporaryError(
            "Ray did not start on this machine within its 30 seconds: other work may have the CPUs. Start"
            " again later, or set executor: here, which needs no Ray"
        ) from error


def _check_that_it_answers(address: _Address) -> None:
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
            f" have its token in {_WHERE_RAY_LOOKS}"
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


def _host_and_port(address: _Address) -> tuple[str, int]:
    split = urlsplit(address.value if "://" in address.value else f"//{address.value}")
    with suppress(ValueError):  # no number
        if split.hostname and split.port and split.scheme in ("", "ray"):
            return split.hostname, split.port
    of_jobs = "; a job is submitted to that one with `ray job submit`" if split.scheme in _HTTP else ""
    raise ConfigError(
        f"{address.source} {address.value!r}: is no address of a cluster, such as head:6379{of_jobs}"
    )


@contextmanager
def own_errors() -> Iterator[None]:
    """What Ray wrapped around an error of ours is taken off. Raises TemporaryError where work stood still."""
    try:
        yield
    except ExecutionTimeoutError as error:
        still_s = DataContext.get_current().execution_no_progress_timeout_s
        raise TemporaryError(
            f"nothing was done for {still_s:,.0f} s: the cluster, which has {described(nodes())}, may have"
            " lost the machines of the actors. What is done stays; start again when there is room. If it"
            " was slow and did not stand still, take smaller shards, in another output.path"
        ) from error
    except Exception as error:  # the wrapper may be of any class: Ray makes one of each that it wraps
        ours = own_error(error)
        if ours is None or ours is error:
            raise
        raise ours from error


def own_error(error: BaseException | None) -> RayrankError | None:
    """Our own error inside of what Ray wrapped around it."""
    while error is not None:
        # Ray raises its wrapper as a subclass of what it wraps.
        if isinstance(error, RayrankError) and not isinstance(error, RayError):
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None
