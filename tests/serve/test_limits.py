"""What a request may ask of a model's lengths: less than it is served with, never more."""

from typing import Any

import httpx2
import pytest

from tests.conftest import TINY
from tests.serve.dialects.reference import QUERY, scores
from tests.serve.local import serving

PASSAGES = ["bear " * 10 + "panda " * 40, "panda " * 10 + "bear " * 40]
MODEL = {"model": TINY, "max_length": 64, "passage_max_length": 8}


@pytest.fixture(scope="module")
def client() -> Any:
    with serving({"short": MODEL}) as server, httpx2.Client(base_url=server.url) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/rerank", {}),
        ("/v2/rerank", {"max_tokens_per_doc": 5000}),
        ("/v1/rerank", {"max_doc_length": 5000}),
        ("/v1/rerank", {"truncate_prompt_tokens": 64}),
        ("/v1/rerank", {"truncate_prompt_tokens": 500}),
        ("/v1/rerank", {}),
    ],
)
def test_a_passages_length_is_no_more_than_the_models(
    client: httpx2.Client, path: str, body: dict[str, Any]
) -> None:
    answer = client.post(path, json={"query": QUERY, "documents": PASSAGES, **body}).json()
    found = {entry["index"]: entry["relevance_score"] for entry in answer["results"]}
    assert found == scores(passages=PASSAGES, normalize=True, max_length=64, passage_max_length=8)


def test_a_passages_length_may_be_less(client: httpx2.Client) -> None:
    body = {"query": QUERY, "documents": PASSAGES, "max_tokens_per_doc": 3}
    answer = client.post("/v2/rerank", json=body).json()
    found = {entry["index"]: entry["relevance_score"] for entry in answer["results"]}
    assert found == scores(passages=PASSAGES, normalize=True, max_length=64, passage_max_length=3)


def test_a_pairs_length_is_no_more_than_the_models() -> None:
    with serving({"short": {"model": TINY, "max_length": 24}}) as server:
        for asked, read in ((20, 20), (500, 24)):
            body = {"query": QUERY, "documents": PASSAGES, "truncate_prompt_tokens": asked}
            answer = httpx2.post(f"{server.url}/v1/rerank", json=body, timeout=30).json()
            found = {entry["index"]: entry["relevance_score"] for entry in answer["results"]}
            assert found == scores(passages=PASSAGES, normalize=True, max_length=read)
            assert answer["usage"]["total_tokens"] <= read * len(PASSAGES)
