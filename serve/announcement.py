"""One log line when the server can really answer: where, and with which models."""

import asyncio
from collections.abc import Iterable

import httpx2
from ray import serve as ray_serve
from ray.serve.context import _get_global_client

from pipeline import log

_AGAIN_S, _TIMEOUT_S = 1.0, 10.0


async def announce(models: Iterable[str]) -> None:
    """Wait until `/ready` says so through the proxy that clients use, then log it; once for all processes of
    the API. Where no proxy listens on this machine (`proxy_location: HeadOnly`) nothing is logged.
    """
    if ray_serve.get_replica_context().rank.rank > 0:
        return
    url = await asyncio.to_thread(_own_url)
    async with httpx2.AsyncClient(timeout=_TIMEOUT_S) as client:
        while not await _is_ready(client, url):
            await asyncio.sleep(_AGAIN_S)
    log.info("ready", url=url, models=", ".join(models))


def _own_url() -> str:
    client = _get_global_client()
    assert client is not None  # in a replica there is one
    application = client.get_serve_details()["applications"][ray_serve.get_replica_context().app_name]
    return f"{client.root_url}{application['route_prefix']}".rstrip("/")


async def _is_ready(client: httpx2.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/ready")).status_code == 200
    except httpx2.TransportError:  # nobody listens yet
        return False
