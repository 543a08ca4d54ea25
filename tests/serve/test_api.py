"""What holds for every dialect, over real HTTP."""

import httpx2
import pytest

from tests.serve.dialects.reference import scores

QUERY = "what is a panda?"
PASSAGES = ["hi", "The giant panda is a bear.", "", "Pandas eat bamboo."]


def test_every_dialect_gives_the_scores_of_the_scorer(client: httpx2.Client) -> None:
    raw = client.post("/rerank", json={"query": QUERY, "texts": PASSAGES, "raw_scores": True}).json()
    assert {entry["index"]: entry["score"] for entry in raw} == scores(QUERY, PASSAGES)


def test_an_unknown_path_leads_to_the_docs_in_the_words_of_the_api_that_was_meant(
    client: httpx2.Client,
) -> None:
    reranks = "this server reranks"
    no_embeddings = "this server reranks, and gives no embeddings"
    too_many = "{} is one, so the client's base URL may have a part too many"
    for path, (*where, why) in {
        "/nowhere": ("error", reranks),
        "/v1/v2/rerank": ("message", too_many.format("/v2/rerank")),
        "/v1/v1/rerank": ("detail", too_many.format("/v1/rerank")),
        "/v1/rank": ("error", too_many.format("/rank")),
        "/v1/rerankk": ("detail", reranks),
        "/v2/reranks": ("message", reranks),
        "/v1/chat/completions": ("detail", reranks),
        "/v2/": ("error", reranks),
        "/v2": ("error", reranks),
        "/v3/nothing": ("error", reranks),
        "/embed": ("error", no_embeddings),
        "/v1/embeddings": ("detail", no_embeddings),
        "/v2/embed": ("message", no_embeddings),
        "/api/rerank": ("error", too_many.format("/rerank")),
        "/api/score": ("error", "message", too_many.format("/score")),
        "/static-offline-docs/nothing.js": ("error", reranks),
    }.items():
        answer = client.post(path, json={"query": QUERY}) if "static" not in path else client.get(path)
        body = answer.json()
        for name in where:
            body = body[name]
        told = f"there is no such path: {why}; GET /docs tells all paths"
        assert (path, answer.status_code, body) == (path, 404, told)
    assert client.get("/docs").status_code == 200


def test_a_slash_at_the_end_changes_nothing(client: httpx2.Client) -> None:
    for path, noun in {"/rank": "passages", "/rerank": "texts", "/v2/rerank": "documents"}.items():
        answer = client.post(f"{path}/", json={"query": QUERY, noun: ["hi"]})
        assert (path, answer.status_code) == (path, 200)
    assert client.post("/v2/rerank/", json={"query": QUERY}).json()["message"].startswith("invalid request:")
    assert client.get("/ready/").json() == client.get("/ready").json()


def test_head_is_answered_where_get_is(client: httpx2.Client) -> None:
    for path in ("/health", "/ready", "/", "/info", "/v1/models", "/docs", "/openapi.json"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path
        assert answer.headers["content-type"] == client.get(path).headers["content-type"]
    assert client.head("/rank").status_code == 405
    assert client.head("/nowhere").status_code == 404


def test_a_path_tells_which_method_it_takes(client: httpx2.Client) -> None:
    for path in ("/rank", "/rerank", "/v1/rerank", "/v2/rerank", "/score"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST"), path
        assert "this path takes POST; GET /docs tells what each path takes" in answer.text


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank", "/score"])
def test_fields_that_are_passed_over_are_named(client: httpx2.Client, path: str) -> None:
    queries = "queries" if path == "/score" else "query"
    body = {queries: QUERY, "documents": ["hi"]}
    plain = client.post(path, json=body)
    assert (plain.status_code, "x-ignored-fields" in plain.headers) == (200, False)
    answer = client.post(path, json=body | {"top_k": 1, "naïve\r\nx: y, z": 2, "x" * 1000: 3})
    assert answer.status_code == 200
    assert answer.headers["x-ignored-fields"] == f"top_k, na%C3%AFve%0D%0Ax%3A%20y%2C%20z, {'x' * 40}"
    many = client.post(path, json=body | {f"field{number}": 0 for number in range(1000)})
    assert len(many.headers["x-ignored-fields"].split(", ")) == 10
    wrong = client.post(path, json={queries: QUERY, "docs": ["hi"]})
    assert wrong.status_code in (400, 422)
    assert wrong.headers["x-ignored-fields"] == "docs"
    assert path == "/score" or "; not known here: docs" in wrong.text


def test_a_field_that_is_refused_is_not_said_to_be_passed_over(client: httpx2.Client) -> None:
    answer = client.post("/rank", json={"query": QUERY, "docs": ["hi"]})
    assert answer.json()["error"] == "passages: Field required; docs: There is no such field"
    assert "x-ignored-fields" not in answer.headers
