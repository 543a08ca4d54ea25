"""Which model a request gets."""

import httpx2

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
        # For clients that look for the name that they give.
        assert [(other["id"], other["alias_of"]) for other in others] == [
            (alias, "tiny") for alias in model["aliases"]
        ]
        unknown = client.post("/v2/rerank", json=BODY | {"model": "rerank-v4"}).json()["message"]
        assert unknown.endswith("Available models: tiny, rerank-v3.5, BAAI/bge-reranker-v2-m3.")
