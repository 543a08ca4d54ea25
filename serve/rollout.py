"""What became of the last deploy: Ray Serve tells it, `/ready` hands it on, and the log when it is ready."""

import asyncio
import re
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import httpx2
from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, ProxyStatus

from pipeline import log
from serve.config import API_DEPLOYMENT, ModelConfig

_ROLLOUT_AGE_S = 5.0
"""Anyone may ask /ready, and the controller shall not be busy with it."""
_TOLD_WITHIN_S = 1.0
"""Of a controller that is busy or gone, what is known is told."""
_ASKED_AGAIN_S, _ANSWER_TIMEOUT_S = 1.0, 10.0
_FAILED = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)
_OUR_ERROR = re.compile(r"^pipeline\.errors\.\w+: (.+?)\s*?(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)
"""A line a mistake, up to the end of the message or of this part of the stack."""


class Rollout:
    """Whether the config that was deployed last is what serves."""

    def __init__(self, application: str | None = None) -> None:
        """application: by its name. None: of all that Serve has, those whose deploy failed."""
        self._application = application
        self._told = ""
        self._asked: asyncio.Task[None] | None = None
        self._asked_at = 0.0

    async def told(self) -> str:
        """Serve's status, and why it is not, or not yet; empty where it is."""
        aged = time.monotonic() - self._asked_at > _ROLLOUT_AGE_S
        if self._asked is None or (self._asked.done() and aged):
            self._asked_at = time.monotonic()
            self._asked = asyncio.create_task(self._ask())
        await asyncio.wait([self._asked], timeout=_TOLD_WITHIN_S)
        return self._told

    async def _ask(self) -> None:
        try:
            self._told = await asyncio.to_thread(self._status)
        except (RayError, TimeoutError) as error:  # no news of the rollout
            log.warning("Serve's controller does not answer", error=type(error).__name__)

    def _status(self) -> str:
        applications = ray_serve.status().applications
        if self._application is None:
            failed = (_told(one) for one in applications.values() if one.status in _FAILED)
            return "; ".join(failed)
        application = applications.get(self._application)
        return "" if application is None else _told(application)


def _told(application: ApplicationStatusOverview) -> str:
    messages = [application.message, *(one.message for one in application.deployments.values())]
    return rollout_told(application.status, messages)


def rollout_told(status: ApplicationStatus, messages: Iterable[str]) -> str:
    """`DEPLOYING: why it lasts` or `DEPLOY_FAILED: the mistakes`, from what Serve says of the application and
    of its deployments; empty where all of it runs.
    """
    if status == ApplicationStatus.RUNNING:
        return ""
    if status in _FAILED:
        return f"{status.value}: {reason_told(messages)}"
    reasons = "; ".join(_one_line(each) for each in messages if each)
    return f"{status.value}: {reasons}" if reasons else status.value


def _one_line(message: str) -> str:
    return " ".join(message.split())


def reason_told(messages: Iterable[str]) -> str:
    """Of Serve's messages the error of ours that they hold, without the stack and in one line; else their
    first line.
    """
    messages = [message for message in messages if message]
    reasons = [reason for message in messages for reason in _OUR_ERROR.findall(message)]
    if reasons:
        return "; ".join(str(reasons[-1]).splitlines())
    return messages[0].splitlines()[0] if messages else "no reason is known"


async def announce(models: Mapping[str, ModelConfig]) -> None:
    """Wait until this version of the config is the one that serves, and `/ready` says so through the proxy
    that clients use. Then log it, once for all its processes of the API: at the first start and after every
    rollout. Where no proxy listens on this machine (`proxy_location: HeadOnly`) nothing is logged.
    """
    while not (serving := await asyncio.to_thread(_serving)):
        await asyncio.sleep(_ASKED_AGAIN_S)
    if serving.first_process != ray_serve.get_replica_context().replica_id.unique_id:
        return
    async with httpx2.AsyncClient(timeout=_ANSWER_TIMEOUT_S) as client:
        while not await _is_ready(client, serving.url):
            await asyncio.sleep(_ASKED_AGAIN_S)
    log.info("ready", url=serving.url, models=", ".join(map(_with_aliases, models, models.values())))


def _with_aliases(name: str, model: ModelConfig) -> str:
    """`minilm (rerank-v3.5)`: a rollout of another alias is told apart from the start before."""
    return f"{name} ({', '.join(model.aliases)})" if model.aliases else name


class _Serving(NamedTuple):
    url: str
    first_process: str
    """Of the API, by its start: a later one takes the place of one that died."""


def _serving() -> _Serving | None:
    """None while a rollout is on its way or has failed, and while no proxy of ours listens."""
    client = _get_global_client()
    assert client is not None  # in a replica there is one
    details = client.get_serve_details()
    application = details["applications"][ray_serve.get_replica_context().app_name]
    proxies = [proxy["status"] for proxy in details["proxies"].values()]
    if application["status"] != ApplicationStatus.RUNNING or ProxyStatus.HEALTHY not in proxies:
        return None
    processes = application["deployments"][API_DEPLOYMENT]["replicas"]
    first = min(processes, key=lambda process: (process["start_time_s"], process["replica_id"]))
    return _Serving(f"{client.root_url}{application['route_prefix']}".rstrip("/"), first["replica_id"])


async def _is_ready(client: httpx2.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/ready")).status_code == 200
    except httpx2.TransportError:  # nobody listens yet
        return False
