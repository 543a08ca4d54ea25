"""Cohere: /v2/rerank, and /v1/rerank for requests of its SDKs."""

import uuid
from typing import Any

import httpx2
import pytest

from serve.dialects import cohere
from serve.problems import Kind, Problem
from tests.serve.dialects.conftest import KEY, MAX_BODY_BYTES, MAX_PASSAGES, TOO_LARGE, TOO_MANY, WRONG_KEY
from tests.serve.dialects.reference import LONG, NO_JSON, NO_OBJECT, QUERY, scores
from tests.serve.local import LocalServer, post_at_once

PASSAGES = ["hi", "The giant panda is a bear.", "Pandas eat bamboo.", "hi", LONG]
BODY = {"model": "tiny", "query": QUERY, "documents": PASSAGES}
SDK = {"X-Fern-SDK-Name": "cohere"}
V1, V2 = "/v1/rerank", "/v2/rerank"


def post(client: httpx2.Client, path: str = V2, **fields: Any) -> httpx2.Response:
    return client.post(path, json=BODY | fields, headers=SDK)


def by_index(response: httpx2.Response) -> dict[int, float]:
    assert response.status_code == 200, response.text
    return {entry["index"]: entry["relevance_score"] for entry in response.json()["results"]}


def error_of(response: httpx2.Response) -> tuple[int, str]:
    assert list(response.json()) == ["message", "id"]
    return response.status_code, response.json()["message"]


@pytest.mark.parametrize(
    ("path", "api_version"), [(V1, {"version": "1"}), (V2, {"version": "2", "is_experimental": False})]
)
def test_the_answer(client: httpx2.Client, path: str, api_version: dict[str, Any]) -> None:
    body = post(client, path).json()
    assert list(body) == ["id", "results", "meta"]
    assert uuid.UUID(body["id"]).version == 4
    assert body["meta"] == {"api_version": api_version, "billed_units": {"search_units": 1}}
    results = body["results"]
    assert [list(result) for result in results] == [["index", "relevance_score"]] * len(PASSAGES)
    assert results == sorted(results, key=lambda result: (-result["relevance_score"], result["index"]))


def test_v2_needs_no_header_of_the_sdk(client: httpx2.Client) -> None:
    assert list(client.post(V2, json=BODY).json()) == ["id", "results", "meta"]


def test_a_search_unit_is_a_hundred_documents(client: httpx2.Client) -> None:
    body = post(client, documents=["hi"] * 101).json()
    assert body["meta"]["billed_units"] == {"search_units": 2}


@pytest.mark.parametrize("path", [V1, V2])
@pytest.mark.parametrize("fields", [{}, {"model": "default"}, {"model": None, "top_n": None}, {"unknown": 1}])
def test_the_scores_of_the_scorer(client: httpx2.Client, path: str, fields: dict[str, Any]) -> None:
    assert by_index(post(client, path, **fields)) == scores(passages=PASSAGES, normalize=True)


@pytest.mark.parametrize(("wanted", "cut"), [(5, 5), (None, None), (4096, None)])
def test_max_tokens_per_doc(client: httpx2.Client, wanted: int | None, cut: int | None) -> None:
    ranked = by_index(post(client, max_tokens_per_doc=wanted, priority=999, return_documents=True))
    assert ranked == scores(passages=PASSAGES, normalize=True, passage_max_length=cut)


@pytest.mark.parametrize("path", [V1, V2])
@pytest.mark.parametrize(("top_n", "count"), [(2, 2), (None, 5), (100, 5)])
def test_top_n(client: httpx2.Client, path: str, top_n: int | None, count: int) -> None:
    assert post(client, path, top_n=top_n).json()["results"] == post(client, path).json()["results"][:count]


@pytest.mark.parametrize(("flag", "shown"), [(True, True), (False, False), (None, False)])
def test_v1_gives_documents_back_whole(client: httpx2.Client, flag: bool | None, shown: bool) -> None:
    documents: list[Any] = ["hi", {"text": "Pandas eat bamboo.", "tags": [1, {"a": None}]}]
    response = post(client, V1, documents=documents, return_documents=flag, max_chunks_per_doc=10)
    assert by_index(response) == scores(passages=["hi", "Pandas eat bamboo."], normalize=True)
    documents_by_index = {entry["index"]: entry.get("document") for entry in response.json()["results"]}
    assert documents_by_index == ({0: {"text": "hi"}, 1: documents[1]} if shown else {0: None, 1: None})
    assert shown or "document" not in response.text


def test_v1_reads_the_fields_that_it_is_told(client: httpx2.Client) -> None:
    documents = [{"title": "Panda", "body": "It is a bear.", "text": "no"}, "hi"]
    response = post(client, V1, documents=documents, rank_fields=["title", "body"])
    expected = scores(passages=["title: Panda\nbody: It is a bear.", "hi"], normalize=True)
    assert by_index(response) == expected


@pytest.mark.parametrize("path", [V1, V2])
@pytest.mark.parametrize("content", NO_JSON)
def test_what_is_no_json(client: httpx2.Client, path: str, content: bytes) -> None:
    response = client.post(path, content=content, headers=SDK | {"Content-Type": "application/json"})
    status, message = error_of(response)
    assert (status, message[:21]) == (400, "invalid json syntax: ")


@pytest.mark.parametrize("content", NO_OBJECT)
def test_json_that_is_no_object(client: httpx2.Client, content: bytes) -> None:
    response = client.post(V2, content=content, headers={"Content-Type": "application/json"})
    assert error_of(response)[0] == 400


@pytest.mark.parametrize("path", [V1, V2])
@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"query": 1}, "query"),
        ({"documents": 1}, "documents"),
        ({"documents": ["hi", 1]}, "documents.1"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": "2"}, "top_n"),
        ({"model": 1}, "model"),
    ],
)
def test_a_wrong_type(client: httpx2.Client, path: str, fields: dict[str, Any], place: str) -> None:
    status, message = error_of(post(client, path, **fields))
    assert status == 400
    assert message.startswith(f"invalid request: {place}: Input should be ")


@pytest.mark.parametrize("fields", [{"documents": [{"text": "hi"}]}, {"documents": "hi"}, {"priority": 1000}])
def test_v2_takes_less(client: httpx2.Client, fields: dict[str, Any]) -> None:
    assert error_of(post(client, V2, **fields))[0] == 400


def test_v2_says_which_path_takes_objects(client: httpx2.Client) -> None:
    told = error_of(post(client, V2, documents=[{"text": "hi"}]))
    assert told == (
        400,
        "invalid request: documents.0: Input should be a string; objects are for /v1/rerank",
    )


@pytest.mark.parametrize("path", [V1, V2])
@pytest.mark.parametrize("missing", ["query", "documents"])
def test_a_missing_field(client: httpx2.Client, path: str, missing: str) -> None:
    body = {name: BODY[name] for name in BODY if name != missing}
    response = client.post(path, json=body, headers=SDK)
    assert error_of(response) == (400, f"invalid request: {missing}: Field required")


@pytest.mark.parametrize("path", [V1, V2])
@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"documents": []}, 400, "invalid request: list of documents must not be empty"),
        ({"query": ""}, 400, "invalid request: query must not be empty or be only whitespace"),
        ({"query": " \n"}, 400, "invalid request: query must not be empty or be only whitespace"),
        ({"documents": ["hi", ""]}, 400, "invalid request: document at index 1 cannot be empty"),
        (
            {"documents": ["hi"] * (MAX_PASSAGES + 1)},
            400,
            f"invalid request: {TOO_MANY}",
        ),
        (
            {"documents": ["x" * MAX_BODY_BYTES]},
            413,
            TOO_LARGE,
        ),
        (
            {"model": "xyz"},
            404,
            "model 'xyz' not found, make sure the correct model ID was used and that you have access to the"
            " model. Available models: tiny, broken.",
        ),
        ({"model": "broken"}, 422, "pair 0: its score is nan; are the model's weights whole?"),
    ],
)
def test_a_request_that_can_not_be_met(
    strict: httpx2.Client, path: str, fields: dict[str, Any], status: int, message: str
) -> None:
    assert error_of(post(strict, path, **({"documents": ["hi"]} | fields))) == (status, message)


def test_v1_documents_without_a_text(client: httpx2.Client) -> None:
    response = post(client, V1, documents=[{"title": "Panda"}])
    assert error_of(response) == (400, "invalid request: documents.0: needs 'text', a string")
    status, message = error_of(post(client, V1, rank_fields=[]))
    assert (status, message[:30]) == (400, "invalid request: rank_fields: ")


@pytest.mark.parametrize("path", [V1, V2])
def test_another_media_type(client: httpx2.Client, path: str) -> None:
    response = client.post(path, content=b"{}", headers=SDK | {"Content-Type": "text/plain"})
    assert error_of(response) == (400, "Unsupported Media Type: Only 'application/json' is allowed")


@pytest.mark.parametrize("path", [V1, V2])
@pytest.mark.parametrize(
    ("authorization", "message"),
    [
        (None, "no api key supplied: send `Authorization: Bearer KEY`"),
        ("Bearer no", f"invalid api token: {WRONG_KEY}"),
        (f"Basic {KEY}", f"invalid api token: {WRONG_KEY}"),
        (f"Bearer team:{KEY}", f"invalid api token: {WRONG_KEY}"),
    ],
)
def test_without_the_key(guarded: LocalServer, path: str, authorization: str | None, message: str) -> None:
    headers = SDK | ({"Authorization": authorization} if authorization else {})
    response = httpx2.post(guarded.url + path, headers=headers, json=BODY)
    assert error_of(response) == (401, message)


def test_the_scheme_in_any_case(guarded: LocalServer) -> None:
    headers = {"Authorization": f"bearer {KEY}"}
    body = BODY | {"documents": ["hi"]}
    assert httpx2.post(guarded.url + V2, headers=headers, json=body).status_code == 200


def test_out_of_time(server: LocalServer) -> None:
    response = post_at_once(server.url, V2, BODY, {"X-Request-Timeout-Seconds": "1e-6"})
    assert error_of(response)[0] == 504


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("overloaded", 429),
        ("rate_limit", 429),
        ("unavailable", 503),
        ("internal", 500),
        ("timeout", 504),
        ("forbidden", 403),
        ("too_long", 400),
    ],
)
def test_what_befalls_a_server(kind: Kind, status: int) -> None:
    assert cohere.error(Problem(kind, "why"), "an-id") == (status, {"message": "why", "id": "an-id"})
