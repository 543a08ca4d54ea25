"""The API below a `route_prefix`: Ray leaves it in the path, and tells it as `root_path`."""

import asyncio
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from serve.api import build
from serve.config import ServeConfig
from serve.work import ModelInfo, Refused, Work
from tests.serve.local import Reports

KEY = "a-key-of-16-characters"


class Full:
    async def score(self, _work: Work) -> Refused:
        return Refused("overloaded", "full", 1.0)

    async def info(self) -> ModelInfo | Refused:
        return Refused("unavailable", "none", 1.0)

    async def check(self) -> None:
        await asyncio.sleep(0)


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def client(reports: Reports, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("KEYS", f"a:{KEY}")
    config = {"models": {"m": {"scorer": {"model": "of/a-hub"}}}, "api": {"keys": {"env": "KEYS"}}}

    async def no_rollout() -> str:
        return ""

    app = build(ServeConfig.model_validate(config), {"m": Full()}, reports, no_rollout)

    async def below(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": "/rr"} if scope["type"] == "http" else scope, receive, send)

    with TestClient(below, raise_server_exceptions=False) as made:
        yield made


def test_what_everyone_may_see_needs_no_key(client: TestClient) -> None:
    paths = ("/rr/health", "/rr/ready", "/rr/ready/", "/rr/", "/rr", "/rr/docs", "/rr/openapi.json")
    assert {path: client.get(path).status_code for path in paths} == dict.fromkeys(paths, 200)
    assert client.get("/rr/static-offline-docs/swagger-ui.css").status_code == 200
    assert client.get("/rr/info").status_code == 401
    assert client.get("/rrr/health").status_code == 401


def test_paths_are_told_and_counted_without_the_prefix(client: TestClient, reports: Reports) -> None:
    client.headers["authorization"] = f"Bearer {KEY}"
    answer = client.post("/rr/v2/rerank", json={"query": "q", "documents": ["a"]})
    assert (answer.status_code, list(answer.json())) == (429, ["message", "id"])
    answer = client.get("/rr/info")
    assert (answer.status_code, answer.json()["error"]) == (503, "none")
    assert "/v2/rerank is one" in client.post("/rr/v1/v2/rerank").text
    assert [report.route for report in reports.seen] == ["/v2/rerank", "/info", ""]
