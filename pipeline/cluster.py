"""The Ray cluster: joining one, quietly, and refusing a job that it can't hold."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import ray
from ray.data import DataContext
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import (
    AuthenticationError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    WorkerCrashedError,
)

from pipeline import log, own_ray, ray_folder
from pipeline.capacity import Node, described, fit, nodes, wait_for_one
from pipeline.errors import ConfigError, DeviceError, RayrankError, TemporaryError
from pipeline.interruption import raise_interrupts
from pipeline.placement import ActorsConfig
from pipeline.ray_address import WHERE_RAY_LOOKS, address, check_that_it_answers
from pipeline.scoring.config import Dtype, ScorerConfig

_HERE = ("", "local")
"""Values of RAY_ADDRESS with which Ray works on this machine."""
_QUIET_S = 10.0
"""For a task on an idle cluster, which has to start a worker."""
_TOO_SLOW = ("timed out during startup", "Timed out waiting for file")
"""Of Ray's messages (ray._private.node, and its C++ parts)."""


def connect(pools: Sequence[ActorsConfig], largest_shard_pairs: int, *, encodes: bool = True) -> None:
    """Join a cluster as `join` does, for the actors of all pools.

    encodes: as in `capacity.fit`. Raises ConfigError where this machine can't hold them, TemporaryError where
    a cluster elsewhere can't hold one of each when `wait_s` is over: nodes may still come.
    """
    # Ray ends a job that shows no progress in 30 minutes; a large shard on a slow device is healthy work.
    join(no_progress_s=max(1800, 2 * largest_shard_pairs))
    try:  # Ray checks a selector's form as soon as something carries it
        for actors in pools:
            ray.remote(label_selector=actors.label_selector)(raise_interrupts)
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
    asked = []
    for scorer, actors in zip(scorers, pools, strict=True):
        # One call a process: one that has met a card would keep some of its memory, beside the actors.
        ask = ray.remote(
            num_cpus=actors.num_cpus,
            num_gpus=actors.num_gpus,
            label_selector=actors.label_selector,
            max_calls=1,
        )(_fastest_dtype)
        asked.append(ask.remote(scorer.device))
    with own_errors():
        if ray.wait(asked, num_returns=len(asked), timeout=_QUIET_S)[1]:
            log.warning("waiting for room for an actor", why="the CPUs or GPUs that it needs are in use")
        return ray.get(asked)


def _fastest_dtype(device: str) -> Dtype:
    # Here and not above: commands that score nothing need no torch.
    from pipeline.scoring.dtype import fastest_dtype  # noqa: PLC0415  (see above)

    return fastest_dtype(device)


def describe(pools: Sequence[ActorsConfig]) -> str:
    """The cluster that `connect` would join, and what it lacks. Starts none, waits for none to grow."""
    try:
        if _starts_one():
            ray_folder.check()
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
    """Where `join` would start a Ray, begin to: as `own_ray.start_early`. Raises ConfigError where its folder
    can't be used.
    """
    if _starts_one():
        ray_folder.check()
        own_ray.start_early()


def _starts_one() -> bool:
    return not ray.is_initialized() and address() is None and os.environ.get("RAY_ADDRESS") != "auto"


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
    raise_interrupts()  # Ray sets a handler of its own, which would end the process at once


def _join_or_start() -> None:
    """Join the cluster at RAY_ADDRESS, or one that `ray start` made on this machine, or start one here."""
    if not own_ray.is_starting() and (found := address()) is not None:
        check_that_it_answers(found)
        try:
            # What Ray's C++ parts say of a cluster that dies, the driver with it, is all that anyone hears.
            ray.init(log_to_driver=False, logging_level=logging.CRITICAL)
        except AuthenticationError as error:
            raise ConfigError(
                f"RAY_AUTH_MODE=token: no token is here; put the cluster's into {WHERE_RAY_LOOKS}"
            ) from error
        except ConnectionError as error:
            raise TemporaryError(
                f"{found.source} {found.value}: can't be joined ({error}). If InvalidAuthToken stands"
                f" above, the token here is not the cluster's: put that into {WHERE_RAY_LOOKS}"
            ) from error
        return
    _start_here()


def _start_here() -> None:
    """Or join what Ray finds, where RAY_ADDRESS is auto. Raises ConfigError where its folder is unfit."""
    if os.environ.get("RAY_ADDRESS") == "auto":
        try:
            own_ray.start()
        except ConnectionError as error:
            raise TemporaryError(
                "RAY_ADDRESS auto: no cluster runs on this machine; start it, or unset RAY_ADDRESS"
            ) from error
        return
    if not own_ray.is_starting():
        ray_folder.check()
    try:
        own_ray.start()
    except Exception as error:  # Ray has no class of its own for it
        if (trouble := ray_folder.trouble(error)) is not None:
            raise trouble from error
        if not any(words in str(error) for words in _TOO_SLOW):
            raise
        raise TemporaryError(
            "Ray did not start on this machine within its 30 seconds: other work may have the CPUs. Start"
            " again later, or set executor: here, which needs no Ray"
        ) from error


@contextmanager
def ends_with_its_device() -> Iterator[None]:
    """End this process, a worker's, where its GPU failed: Ray starts another, and does the work again."""
    try:
        yield
    except DeviceError as error:
        log.warning("process ends", why=error)
        os._exit(1)


@contextmanager
def own_errors(slow: str = "take smaller shards, in another output.path") -> Iterator[None]:
    """What Ray wrapped around an error of ours is taken off. Raises TemporaryError where work stood still, or
    where processes died of it again and again.

    slow: what to do about work that is too slow.
    """
    try:
        yield
    except (WorkerCrashedError, OutOfMemoryError, NodeDiedError) as error:
        raise TemporaryError(
            "processes died again and again of the same work, out of memory perhaps"
            f" ({type(error).__name__}). What is done stays; start again on machines with more memory"
        ) from error
    except ExecutionTimeoutError as error:
        still_s = DataContext.get_current().execution_no_progress_timeout_s
        available: Callable[[], dict[str, float]] = ray.available_resources  # Ray 2.60 gives it no types
        free = available()
        raise TemporaryError(
            f"nothing was done for {still_s:,.0f} s. The cluster has {described(nodes())}, of which"
            f" {free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs are free now: it may have lost the"
            " machines of the work, or other work holds them. What is done stays; start again when there is"
            f" room. If it was slow and did not stand still, {slow}"
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
