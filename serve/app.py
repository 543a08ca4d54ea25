"""The application on Ray Serve: the API in front, and for each model a deployment whose replicas score.

serve run configs/serve/rerank.yaml
"""

import asyncio
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fastapi import FastAPI
from ray import serve as ray_serve
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError
from ray.serve import Application, Deployment
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig
from starlette.middleware import Middleware

from pipeline import log
from pipeline.errors import ConfigError
from serve.api import build
from serve.arguments import mistakes_in_keys, mistakes_in_models, read_arguments
from serve.cascade import assembled
from serve.config import API_DEPLOYMENT, ModelConfig, ServeConfig, deployment_name
from serve.dialects import native
from serve.front.connection import guard_connections
from serve.front.edge import Edge
from serve.front.port import share_no_port
from serve.keys import until_readable
from serve.metrics import ApiMetrics, ReplicaMetrics
from serve.rollout import Rollout, announce
from serve.room import mistakes_in_room
from serve.routes import Routes
from serve.work import ModelInfo, Refused, Scores, Work

_ATTEMPTS = 3
"""Scoring changes nothing, so what a dead replica had may be asked of another."""
_DIED = (RayActorError, NodeDiedError, OutOfMemoryError, WorkerCrashedError)
"""What Ray raises where the process that was asked is gone; the third where its memory monitor ended it."""
_METRICS_INTERVAL_S = 1.0
"""Ray's 10 seconds would have a queue grow for as long before it is seen."""
_ONGOING_REQUESTS = 10_000
"""The replica's own queue, which knows tokens, decides what is too much; Serve's counts requests."""

_MALLOC = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}
"""The device's thread shall keep its memory between batches, as glibc's main thread does. Otherwise every
layer maps and clears its activations anew: thousands of page faults, 5 % of the time of a CPU's batch."""

_LOGGING = LoggingConfig(enable_access_log=False)
"""The API's own log has a line a request, with more in it."""


def guard() -> list[Middleware]:
    """What Ray Serve calls in each process that will hold connections, where its environment says so:

    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.app:guard
    """
    log.configure()
    share_no_port()
    guard_connections()
    return [Middleware(Edge, dialect_of=Routes(elsewhere=native).dialect_of, failed=Rollout().told)]


class ScoringReplica:
    """A replica of one model."""

    def __init__(self, name: str, config: ModelConfig) -> None:
        log.configure()
        # The tokenizer would take every core of the machine.
        os.environ.setdefault("RAYON_NUM_THREADS", str(max(1, int(config.replicas.num_cpus))))
        self._metrics = ReplicaMetrics(name)
        # Here and not above: the API's processes hold no model, and need no torch.
        from serve.replica import Replica  # noqa: PLC0415
        from serve.shared_dtype import shared  # noqa: PLC0415

        self._replica = Replica(shared(config.placed_scorer), config.max_wait_s, self._metrics.batch_done)
        self._started = asyncio.create_task(self._replica.start())

    async def score(self, work: Work) -> Scores | Refused:
        await self._started
        try:
            return await self._replica.score(work)
        finally:
            self._die_if_broken()

    async def info(self) -> ModelInfo:
        await self._started
        return self._replica.info()

    async def full(self) -> Refused | None:
        await self._started
        return self._replica.full()

    def _die_if_broken(self) -> None:
        """A device that failed stays so. Requests are asked of another replica then, and a new one starts."""
        try:
            self._replica.check()
        except RuntimeError as error:
            log.warning("replica ends", reason=str(error), cause=repr(error.__cause__)[:300])
            os._exit(1)

    async def check_health(self) -> None:
        """Ray Serve's: raises where this replica shall be replaced."""
        await self._started
        self._replica.check()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Ray Serve's: how much waits here, for `replicas_wanted`."""
        return {_WAITING: self._replica.waiting_s if self._started.done() else 0.0}


_WAITING = "waiting_s"


def replicas_wanted(context: AutoscalingContext, target_wait_s: float = 0.5) -> tuple[int, dict[str, Any]]:
    """Ray Serve's autoscaling policy: as many replicas as have `target_wait_s` of work waiting each.

    The work is told by the replicas, as seconds that their device needs for the tokens that wait. Requests
    that found no replica (scaled to zero) ask for one. Delays and bounds are Serve's.
    """
    waiting_s = sum((context.aggregated_metrics or {}).get(_WAITING, {}).values())
    wanted = math.ceil(waiting_s / target_wait_s)
    busy = context.total_num_requests > 0
    floor = max(context.capacity_adjusted_min_replicas, 1 if busy else 0)
    return min(max(wanted, floor), context.capacity_adjusted_max_replicas), {}


class RemoteModel:
    """A model whose replicas are a deployment."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def score(self, work: Work) -> Scores | Refused:
        begin = time.monotonic()

        def ask(again: bool) -> Any:
            if not again:
                return self._handle.score.remote(work)
            left_s = None if work.timeout_s is None else work.timeout_s - (time.monotonic() - begin)
            return self._handle.score.remote(replace(work, accepted=True, timeout_s=left_s))

        outcome: Scores | Refused = await _outcome(ask)
        return outcome

    async def info(self) -> ModelInfo | Refused:
        info: ModelInfo | Refused = await _outcome(lambda _again: self._handle.info.remote())
        return info

    async def full(self) -> Refused | None:
        full: Refused | None = await _outcome(lambda _again: self._handle.full.remote())
        return full

    async def check(self) -> None:
        response = self._handle.check_health.remote()
        try:
            await response
        except asyncio.CancelledError:
            cancel: Callable[[], None] = response.cancel  # Ray 2.60 gives it no types
            cancel()
            raise


async def _outcome(ask: Callable[[bool], Any]) -> Any:
    """What a replica says; Refused where none does. ask: is told whether one died that was asked before."""
    for attempt in range(_ATTEMPTS):
        response = ask(attempt > 0)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except BackPressureError as error:
            return Refused("overloaded", str(error), 1.0)
        except DeploymentUnavailableError:
            why = "no replica of this model could be started; the server's log and /ready tell why"
            return Refused("unavailable", why, 1.0)
        except _DIED as error:
            log.warning("replica died", retried=True, error=type(error).__name__)
    return Refused("unavailable", "replicas died while they worked on it", 1.0)


class HttpApi:
    """The deployment that speaks HTTP."""

    def __init__(self, config: ServeConfig, models: dict[str, DeploymentHandle[Any]]) -> None:
        log.configure()
        self._config = config
        self._models = assembled(config, {name: RemoteModel(handle) for name, handle in models.items()})

    async def __serve_build_asgi_app__(self) -> FastAPI:
        await until_readable(self._config.api.keys)
        self._announced = asyncio.create_task(announce(self._config.models))
        rollout = Rollout(ray_serve.get_replica_context().app_name)
        return build(self._config, self._models, ApiMetrics(), rollout.told)


def build_app(arguments: dict[str, Any]) -> Application:
    """What `import_path: serve.app:build_app` calls with the config's `args`. Raises ConfigError, which names
    all mistakes that are found, one a line.

    While it runs, and where it raises, the version before serves. Later Serve takes old replicas away before
    it knows whether new ones start, so all that can be checked without weights is checked here.
    """
    given = read_arguments(arguments)
    mistakes = [*given.mistakes, *mistakes_in_keys(given.api, os.environ), *mistakes_in_models(given.models)]
    mistakes += mistakes_in_room(given.models)
    if mistakes or given.config is None:
        raise ConfigError("\n".join(mistakes))
    config = given.config
    singles = [single for name, model in config.models.items() for single in model.singles(name).items()]
    models = {name: _model(name, single) for name, single in singles}
    api = ray_serve.deployment(
        name=API_DEPLOYMENT,
        num_replicas=config.api.replicas,
        ray_actor_options={"num_cpus": config.api.num_cpus},
        max_surge_percent=100,  # an old API answers until a new one does
        max_ongoing_requests=_ONGOING_REQUESTS,
        logging_config=_LOGGING,
        graceful_shutdown_timeout_s=config.api.timeout_s,
    )
    return _bound(api(ray_serve.ingress()(HttpApi)), config, models)


def _model(name: str, config: ModelConfig) -> Application:
    replicas = config.replicas
    scaling = AutoscalingConfig(
        min_replicas=replicas.min,
        max_replicas=replicas.max,
        upscale_delay_s=replicas.upscale_delay_s,
        downscale_delay_s=replicas.downscale_delay_s,
        metrics_interval_s=_METRICS_INTERVAL_S,
        look_back_period_s=max(2 * _METRICS_INTERVAL_S, replicas.upscale_delay_s),
        policy=AutoscalingPolicy(  # type: ignore[no-untyped-call]  # Ray's has no types
            policy_function=replicas_wanted, policy_kwargs={"target_wait_s": replicas.target_wait_s}
        ),
    )
    options: dict[str, Any] = {
        "num_cpus": replicas.num_cpus,
        "num_gpus": replicas.num_gpus,
        "runtime_env": {"env_vars": _MALLOC},
    }
    if replicas.label_selector:
        options["label_selector"] = replicas.label_selector
    deployment = ray_serve.deployment(
        name=deployment_name(name),
        autoscaling_config=scaling,
        ray_actor_options=options,
        max_ongoing_requests=_ONGOING_REQUESTS,
        logging_config=_LOGGING,
        health_check_period_s=5,
        max_surge_percent=replicas.max_surge_percent,
        graceful_shutdown_timeout_s=60,
    )
    return _bound(deployment(ScoringReplica), name, config)


def _bound(deployment: Deployment, *arguments: Any) -> Application:
    bound: Application = deployment.bind(*arguments)
    return bound
