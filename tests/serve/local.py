"""The API over real HTTP with its models in the same process: all but Ray."""

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import uvicorn

from serve.api import build
from serve.cascade import assembled
from serve.config import ServeConfig
from serve.dialects import native
from serve.front import RequestReport
from serve.front.connection import Connection
from serve.front.edge import Edge
from serve.replica import Replica
from serve.routes import Routes
from serve.work import ModelInfo, Refused, Scores, Work


class LocalModel:
    """A model whose one replica lives on the server's own event loop."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica

    async def score(self, work: Work) -> Scores | Refused:
        return await self.replica.score(work)

    async def info(self) -> ModelInfo:
        return self.replica.info()

    async def full(self) -> Refused | None:
        return self.replica.full()

    async def check(self) -> None:
        self.replica.check()


def post_at_once(url: str, path: str, body: Any, headers: dict[str, str]) -> httpx2.Response:
    """Head and body in one piece, which httpx sends in two: the body is there as soon as the head is."""
    data = json.dumps(body).encode()
    host, port = url.removeprefix("http://").split(":")
    headers = {"Host": host, "Content-Type": "application/json", "Content-Length": str(len(data)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + data)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return httpx2.Response(answer.status, content=answer.read())


class Reports:
    """Keeps what the API reports of each request."""

    def __init__(self) -> None:
        self.seen: list[RequestReport] = []

    def request_done(self, report: RequestReport) -> None:
        self.seen.append(report)


class LocalServer:
    """`url`, the models' replicas, and the reports of requests."""

    def __init__(self, config: ServeConfig) -> None:
        self.models = {
            single: LocalModel(Replica(own.placed_scorer, own.max_wait_s, lambda _batch: None))
            for name, model in config.models.items()
            for single, own in model.singles(name).items()
        }
        """What has replicas: models, and levels of cascades."""
        self.reports = Reports()
        self.rollout = ""
        app = build(config, assembled(config, self.models), self.reports, self._rollout)
        self._server = uvicorn.Server(
            uvicorn.Config(
                Edge(app, Routes(elsewhere=native).dialect_of, self._rollout),
                http=Connection,
                host="127.0.0.1",
                port=0,
                log_level="critical",  # of requests that are none
                # Else it ends all handlers of the process, and absl's, which a library may bring, closes the
                # stream on which it began: pytest's.
                log_config=None,
            )
        )

    async def _rollout(self) -> str:
        return self.rollout

    async def serve(self) -> None:
        for model in self.models.values():
            await model.replica.start()
        await self._server.serve()
        for model in self.models.values():
            await model.replica.close()

    @property
    def started(self) -> bool:
        return self._server.started

    @property
    def url(self) -> str:
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        self._server.should_exit = True


def eventually(condition: Callable[[], bool]) -> None:
    """What the server does after its answer: logs, reports."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "did not come about"
        time.sleep(0.01)


@contextmanager
def serving(models: dict[str, Any], **api: Any) -> Iterator[LocalServer]:
    """models: ScorerConfig or ModelConfig fields by name; api: ApiConfig's."""
    config = ServeConfig.model_validate(
        {
            "models": {
                name: model if {"scorer", "levels"} & model.keys() else {"scorer": model}
                for name, model in models.items()
            },
            "api": {"keys": "none"} | api,
        }
    )
    server = LocalServer(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.01)
        yield server
    finally:
        server.stop()
        thread.join()
