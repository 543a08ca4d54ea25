"""Every dialect ranks by the logits: their sigmoids, which most of them show, can all be 1.0."""

from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest

from pipeline.scoring import Scorer, ScorerConfig
from tests.scoring.checkpoints import make_saturated
from tests.serve.local import serving

QUERY = "a river"
PASSAGES = [f"passage {word} of the river" for word in ["north", "south", "east", "west", "up", "down"]]
TEXTS = {"query": QUERY, "texts": PASSAGES}
DOCUMENTS = {"query": QUERY, "documents": PASSAGES}
COHERE = {"X-Fern-SDK-Name": "cohere"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_saturated(tmp_path_factory.mktemp("saturated") / "model", 40.0))


@pytest.fixture(scope="module")
def saturated(model: str) -> Iterator[httpx2.Client]:
    with serving({"saturated": {"model": model}}) as server, httpx2.Client(base_url=server.url) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "body", "headers", "results"),
    [
        ("/rerank", TEXTS, {}, None),
        ("/rerank", DOCUMENTS, {}, "results"),
        ("/v1/rerank", DOCUMENTS, {}, "results"),
        ("/v1/rerank", DOCUMENTS, COHERE, "results"),
        ("/v2/rerank", DOCUMENTS, {}, "results"),
        ("/rank", {"query": QUERY, "passages": PASSAGES, "normalize": True}, {}, "ranked"),
    ],
)
def test_best_first_by_the_logits(
    saturated: httpx2.Client,
    model: str,
    path: str,
    body: dict[str, Any],
    headers: dict[str, str],
    results: str | None,
) -> None:
    logits = Scorer(ScorerConfig(model=model, device="cpu")).score([(QUERY, text) for text in PASSAGES])
    answer = saturated.post(path, json=body, headers=headers).json()
    ranked = answer if results is None else answer[results]
    assert [entry["index"] for entry in ranked] == np.argsort(-logits, kind="stable").tolist()
    assert {entry.get("score", entry.get("relevance_score")) for entry in ranked} == {1.0}
