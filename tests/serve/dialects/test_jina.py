"""Jina's /v1/rerank, with what vLLM's of the same path adds."""

from typing import Any

import httpx2
import pytest

from serve.dialects import jina
from serve.problems import Kind, Problem
from tests.serve.dialects.conftest import KEY, MAX_BODY_BYTES, MAX_PASSAGES, TOO_LARGE, TOO_MANY
from tests.serve.dialects.reference import NO_JSON, NO_OBJECT, PASSAGES, QUERY, scores, tokens
from tests.serve.local import LocalServer, post_at_once

BODY = {"model": "tiny", "query": QUERY, "documents": PASSAGES}


def post(client: httpx2.Client, **fields: Any) -> httpx2.Response:
    return client.post("/v1/rerank", json=BODY | fields)


def by_index(response: httpx2.Response) -> dict[int, float]:
    assert response.status_code == 200, response.text
    return {entry["index"]: entry["relevance_score"] for entry in response.json()["results"]}


def error_of(response: httpx2.Response) -> tuple[int, str, str]:
    """Status, code and detail; the fields for vLLM's and Cohere's clients say the same."""
    body = response.json()
    assert list(body) == ["detail", "message", "code", "request_id", "error"]
    assert body["detail"] == body["message"] == body["error"]["message"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert body["error"]["code"] == response.status_code
    assert body["request_id"]
    return response.status_code, body["code"], body["detail"]


def test_the_answer(client: httpx2.Client) -> None:
    body = client.post("/v1/rerank", json=BODY, headers={"X-Request-Id": "mine"}).json()
    assert list(body) == ["id", "model", "object", "usage", "results"]
    assert (body["id"], body["model"], body["object"]) == ("score-mine", "tiny", "list")
    assert body["usage"] == {"prompt_tokens": tokens(), "total_tokens": tokens()}
    results = body["results"]
    assert [list(result) for result in results] == [["index", "relevance_score", "document"]] * len(PASSAGES)
    assert results == sorted(results, key=lambda result: (-result["relevance_score"], result["index"]))
    assert all(result["document"] == {"text": PASSAGES[result["index"]]} for result in results)


@pytest.mark.parametrize(("flag", "shown"), [(True, True), (None, True), (False, False)])
def test_documents_are_left_out_not_null(client: httpx2.Client, flag: bool | None, shown: bool) -> None:
    results = post(client, return_documents=flag).json()["results"]
    assert all(("document" in result) == shown for result in results)


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {"normalize": True}),
        ({"model": "default", "truncation": True, "return_embeddings": False}, {"normalize": True}),
        ({"model": None, "truncation": None, "top_n": None, "max_doc_length": None}, {"normalize": True}),
        ({"max_doc_length": 5}, {"normalize": True, "passage_max_length": 5}),
        ({"max_tokens_per_doc": 5}, {"normalize": True, "passage_max_length": 5}),
        ({"use_activation": False}, {}),
        ({"truncate_prompt_tokens": 20}, {"normalize": True, "max_length": 20}),
        ({"truncation_side": "left"}, {"normalize": True, "truncation_side": "left"}),
    ],
)
def test_the_scores_of_the_scorer(
    client: httpx2.Client, fields: dict[str, Any], options: dict[str, Any]
) -> None:
    assert by_index(post(client, **fields)) == scores(**options)


@pytest.mark.parametrize(("top_n", "count"), [(2, 2), (0, 6), (None, 6), (100, 6)])
def test_top_n(client: httpx2.Client, top_n: int | None, count: int) -> None:
    assert post(client, top_n=top_n).json()["results"] == post(client).json()["results"][:count]


def test_documents_as_strings_and_objects(client: httpx2.Client) -> None:
    documents = ["hi", {"text": "Pandas eat bamboo.", "url": 7}]
    response = post(client, documents=documents)
    assert by_index(response) == scores(passages=["hi", "Pandas eat bamboo."], normalize=True)
    shown = {entry["index"]: entry["document"] for entry in response.json()["results"]}
    assert shown == {0: {"text": "hi"}, 1: {"text": "Pandas eat bamboo."}}
    assert by_index(post(client, documents="hi")) == scores(passages=["hi"], normalize=True)


@pytest.mark.parametrize("content", NO_JSON)
def test_what_is_no_json(client: httpx2.Client, content: bytes) -> None:
    response = client.post("/v1/rerank", content=content, headers={"Content-Type": "application/json"})
    assert error_of(response)[:2] == (422, "INPUT_VALIDATION_ERROR")


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"query": "no", "query": "a", "documents": ["b"]}', 200),  # as Python's json: the last one counts
        (b'{"query": "a", "documents": ["b"], "top_n": 1e400}', 422),
        (b'{"query": "a", "documents": ["b"], "top_n": ' + b"9" * 4000 + b"}", 200),
        (b'{"query": "a", "documents": ["b"], "max_doc_length": ' + b"9" * 4000 + b"}", 200),
        (b'{"query": "a", "documents": [{"text": "b", "n": 1e400}]}', 200),
        (b'{"query": "a\\u0000", "documents": ["\\ud83d\\udc3c"]}', 200),
    ],
)
def test_json_on_the_edge(client: httpx2.Client, content: bytes, status: int) -> None:
    response = client.post("/v1/rerank", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == status, response.text


@pytest.mark.parametrize("content", NO_OBJECT)
def test_json_that_is_no_object(client: httpx2.Client, content: bytes) -> None:
    response = client.post("/v1/rerank", content=content, headers={"Content-Type": "application/json"})
    assert error_of(response)[:2] == (422, "INPUT_VALIDATION_ERROR")


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"query": 1}, "query"),
        ({"query": {"text": "a"}}, "query"),
        ({"documents": {"text": "a"}}, "documents"),
        ({"documents": ["hi", 1]}, "documents.1"),
        ({"documents": ["hi", None]}, "documents.1"),
        ({"top_n": -1}, "top_n"),
        ({"top_n": "2"}, "top_n"),
        ({"top_n": 2.0}, "top_n"),
        ({"top_n": True}, "top_n"),
        ({"return_documents": "yes"}, "return_documents"),
        ({"truncation": 1}, "truncation"),
        ({"max_doc_length": 0}, "max_doc_length"),
        ({"model": 1}, "model"),
    ],
)
def test_a_wrong_type(client: httpx2.Client, fields: dict[str, Any], place: str) -> None:
    status, code, detail = error_of(post(client, **fields))
    assert (status, code) == (422, "INPUT_VALIDATION_ERROR")
    assert detail.startswith(f"{place}: Input should be ")
    assert ";" not in detail


@pytest.mark.parametrize("missing", ["query", "documents"])
def test_a_missing_field(client: httpx2.Client, missing: str) -> None:
    response = client.post("/v1/rerank", json={name: BODY[name] for name in BODY if name != missing})
    assert error_of(response) == (422, "INPUT_VALIDATION_ERROR", f"{missing}: Field required")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"documents": []},
            (422, "INPUT_VALIDATION_ERROR", "documents: at least one document is needed"),
        ),
        (
            {"documents": ["hi", {"image": "x"}]},
            (422, "INPUT_VALIDATION_ERROR", "documents.1: needs 'text', a string"),
        ),
        (
            {"documents": [{"text": 1}]},
            (422, "INPUT_VALIDATION_ERROR", "documents.0: needs 'text', a string"),
        ),
        (
            {"model": "x"},
            (400, "INPUT_MODEL_NOT_FOUND", "Model 'x' not found. Available models: tiny, broken."),
        ),
        (
            {"documents": ["hi"] * (MAX_PASSAGES + 1)},
            (413, "INPUT_TOO_MANY_DOCUMENTS", TOO_MANY),
        ),
        (
            {"documents": ["x" * MAX_BODY_BYTES]},
            (413, "INPUT_TOO_LARGE", TOO_LARGE),
        ),
        (
            {"model": "broken"},
            (422, "INPUT_VALIDATION_ERROR", "pair 0: its score is nan; are the model's weights whole?"),
        ),
    ],
)
def test_a_request_that_can_not_be_met(
    strict: httpx2.Client, fields: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    assert error_of(post(strict, **({"documents": ["hi"]} | fields))) == expected


def test_a_pair_that_is_too_long_and_must_not_be_cut(client: httpx2.Client) -> None:
    status, _, detail = error_of(post(client, truncation=False))
    assert status == 422
    assert "don't fit" in detail
    assert post(client, documents=["hi"], truncation=False).status_code == 200


def test_another_media_type(client: httpx2.Client) -> None:
    response = client.post("/v1/rerank", content=b"{}", headers={"Content-Type": "text/plain"})
    message = "Unsupported Media Type: Only 'application/json' is allowed"
    assert error_of(response) == (415, "INPUT_VALIDATION_ERROR", message)


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "AUTH_MISSING_API_KEY"),
        ("Bearer no", "AUTH_INVALID_API_KEY"),
        (f"Basic {KEY}", "AUTH_INVALID_API_KEY"),
    ],
)
def test_without_the_key(guarded: LocalServer, authorization: str | None, code: str) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    response = httpx2.post(f"{guarded.url}/v1/rerank", headers=headers, json=BODY)
    assert error_of(response)[:2] == (401, code)
    assert response.json()["error"]["type"] == "AuthenticationError"


def test_too_many_requests(guarded: LocalServer) -> None:
    headers = {"Authorization": f"Bearer hasty-{KEY}"}
    body = BODY | {"documents": ["hi"]}
    responses = [httpx2.post(f"{guarded.url}/v1/rerank", headers=headers, json=body) for _ in range(2)]
    assert responses[0].status_code == 200
    assert error_of(responses[1])[:2] == (429, "RATE_REQUEST_LIMIT_EXCEEDED")
    assert 1 <= int(responses[1].headers["retry-after"]) <= 61  # the minute begins at the end of a slice


def test_out_of_time(server: LocalServer) -> None:
    response = post_at_once(server.url, "/v1/rerank", BODY, {"X-Request-Timeout-Seconds": "1e-6"})
    assert error_of(response)[:2] == (504, "SERVICE_TIMEOUT")


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("overloaded", 429, "RATE_CONCURRENCY_LIMIT_EXCEEDED"),
        ("unavailable", 503, "SERVICE_UNAVAILABLE"),
        ("internal", 500, "INTERNAL_ERROR"),
        ("forbidden", 403, "AUTH_FORBIDDEN"),
    ],
)
def test_what_befalls_a_server(kind: Kind, status: int, code: str) -> None:
    given_status, body = jina.error(Problem(kind, "why"), "an-id")
    assert (given_status, body["code"], body["detail"], body["request_id"]) == (status, code, "why", "an-id")


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/score"])
def test_a_limit_that_does_not_fit_is_named_as_the_client_named_it(client: httpx2.Client, path: str) -> None:
    """In the scorer's words it is max_length, which no client of these dialects has sent. vLLM's, too."""
    body = (
        BODY | ({"queries": BODY["query"]} if path == "/score" else {}) | {"truncate_prompt_tokens": 100_000}
    )
    response = client.post(path, json=body)
    assert response.status_code >= 400
    assert "truncate_prompt_tokens 100000: the model has" in response.text
    assert "max_length" not in response.text


def test_a_document_comes_back_as_its_text_whatever_was_read_of_it(client: httpx2.Client) -> None:
    documents = ["plain", {"title": "t", "text": "own text"}, {"title": "no text"}]
    answer = post(client, documents=documents, rank_fields=["title", "text"])
    texts = {entry["index"]: entry["document"]["text"] for entry in answer.json()["results"]}
    assert texts == {0: "plain", 1: "own text", 2: "title: no text"}
