"""Which model a request gets, and what is too much for any."""

import asyncio
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import httpx2
import pytest

from serve.config import ServeConfig
from serve.dialect import Call
from serve.problems import Problem
from serve.service import Service
from serve.work import Work
from tests.conftest import TINY
from tests.serve.local import serving

BODY = {"query": "what is a panda?", "documents": ["hi", "The giant panda is a bear."]}


def test_an_alias_is_a_name_of_its_model() -> None:
    model = {"scorer": {"model": TINY}, "aliases": ["rerank-v3.5", "BAAI/bge-reranker-v2-m3"]}
    with serving({"tiny": model}) as server, httpx2.Client(base_url=server.url) as client:
        plain = client.post("/v2/rerank", json=BODY).json()["results"]
        for alias in model["aliases"]:
            assert client.post("/v2/rerank", json=BODY | {"model": alias}).json()["results"] == plain
        assert client.post("/v1/rerank", json=BODY | {"model": "rerank-v3.5"}).json()["model"] == "tiny"
        card, *others = client.get("/v1/models").json()["data"]
        assert (card["id"], card["aliases"]) == ("tiny", model["aliases"])
        assert "alias_of" not in card
        assert card["owned_by"] == "rayrank"
        assert card["created"] > 1_700_000_000  # which OpenAI's client needs
        # For clients that look for the name that they give.
        assert [(other["id"], other["alias_of"]) for other in others] == [
            (alias, "tiny") for alias in model["aliases"]
        ]
        unknown = client.post("/v2/rerank", json=BODY | {"model": "rerank-v4"}).json()["message"]
        assert unknown.endswith("Available models: tiny, rerank-v3.5, BAAI/bge-reranker-v2-m3.")


@pytest.fixture(scope="module")
def short() -> Iterator[httpx2.Client]:
    """Takes texts of up to 40 characters."""
    with (
        serving({"tiny": {"model": TINY}}, max_text_characters=40) as server,
        httpx2.Client(base_url=server.url) as client,
    ):
        yield client


def test_a_dialect_need_not_refuse_a_request_without_passages() -> None:
    config = ServeConfig.model_validate(
        {"models": {"tiny": {"scorer": {"model": TINY}}}, "api": {"keys": "none"}}
    )
    service = Service(config, {"tiny": Mock()}, Mock())
    with pytest.raises(Problem, match="passages: at least one is needed") as caught:
        asyncio.run(service.answer(Mock(), Call(None, Work([], []), noun="passages")))
    assert (caught.value.kind, caught.value.field) == ("empty", "passages")


FITS, TOO_LONG = "x" * 40, "é" * 41
COHERE = {"X-Fern-SDK-Name": "cohere"}


@pytest.mark.parametrize(
    ("path", "noun", "headers", "status"),
    [
        ("/rank", "passages", {}, 413),
        ("/rerank", "texts", {}, 413),
        ("/rerank", "documents", {}, 413),
        ("/v1/rerank", "documents", {}, 413),
        ("/v1/rerank", "documents", COHERE, 400),
        ("/v2/rerank", "documents", {}, 400),
    ],
)
def test_a_text_that_is_too_long_is_told_by_its_place(
    short: httpx2.Client, path: str, noun: str, headers: dict[str, str], status: int
) -> None:
    def told(query: str, passages: list[str]) -> str:
        answer = short.post(path, json={"query": query, noun: passages}, headers=headers)
        assert answer.status_code == status
        return answer.text

    why = "41 characters are more than the 40 allowed (api.max_text_characters of the server's config): cut"
    assert f"{noun}.1: {why}" in told(FITS, ["hi", TOO_LONG, TOO_LONG])
    assert f"query: {why}" in told(TOO_LONG, ["hi", "hi"])
    assert short.post(path, json={"query": FITS, noun: ["hi", FITS]}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("sides", "place"),
    [
        ({"queries": ["a", TOO_LONG], "documents": ["b", "c"]}, "queries.1"),
        ({"queries": "a", "documents": ["b", TOO_LONG]}, "documents.1"),
        ({"queries": TOO_LONG, "documents": ["b", "c"]}, "query"),
    ],
)
def test_of_several_queries_the_long_one_is_told(
    short: httpx2.Client, sides: dict[str, Any], place: str
) -> None:
    answer = short.post("/score", json=sides)
    assert answer.status_code == 413
    assert answer.json()["error"]["message"].startswith(f"{place}: 41 characters")


def test_an_object_is_measured_by_what_is_read_of_it(short: httpx2.Client) -> None:
    documents = [{"text": "hi", "body": TOO_LONG}]
    assert short.post("/v1/rerank", json={"query": "a", "documents": documents}).status_code == 200
    answer = short.post("/v1/rerank", json={"query": "a", "documents": documents, "rank_fields": ["body"]})
    assert answer.json()["code"] == "INPUT_TOO_LARGE"
    assert answer.json()["detail"].startswith("documents.0: 47 characters")
