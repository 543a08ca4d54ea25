"""vLLM: /score, and /rerank for bodies with `documents`."""

import time
from typing import Any

import httpx2
import pytest

from serve.dialects import vllm
from serve.problems import Kind, Problem
from tests.serve.dialects.conftest import KEY, MAX_BODY_BYTES, MAX_PASSAGES, TOO_LARGE, TOO_MANY, WRONG_KEY
from tests.serve.dialects.reference import LONG, NO_JSON, NO_OBJECT, PASSAGES, QUERY, scores, tokens
from tests.serve.local import LocalServer

RERANK = {"query": QUERY, "documents": PASSAGES}
UNKNOWN_MODEL = "The model `x` does not exist. Available models: tiny, broken."
SCORE = {"queries": QUERY, "documents": PASSAGES}


def post(client: httpx2.Client, path: str = "/rerank", **fields: Any) -> httpx2.Response:
    return client.post(path, json=(RERANK if path == "/rerank" else SCORE) | fields)


def by_index(response: httpx2.Response) -> dict[int, float]:
    assert response.status_code == 200, response.text
    body = response.json()
    if "data" in body:
        return {entry["index"]: entry["score"] for entry in body["data"]}
    return {entry["index"]: entry["relevance_score"] for entry in body["results"]}


def error_of(response: httpx2.Response) -> dict[str, Any]:
    body = response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert body["error"]["code"] == response.status_code
    return dict(body["error"])


def test_rerank_answers_best_first_with_documents(client: httpx2.Client) -> None:
    body = post(client).json()
    assert list(body) == ["id", "model", "usage", "results"]
    assert body["id"].startswith("score-")
    assert (body["model"], body["usage"]) == (
        "tiny",
        {"prompt_tokens": tokens(), "total_tokens": tokens()},
    )
    results = body["results"]
    assert [list(result) for result in results] == [["index", "document", "relevance_score"]] * len(PASSAGES)
    assert results == sorted(results, key=lambda result: (-result["relevance_score"], result["index"]))
    assert all(
        result["document"] == {"text": PASSAGES[result["index"]], "multi_modal": None} for result in results
    )


def test_score_answers_in_the_order_given(client: httpx2.Client) -> None:
    begin = int(time.time())
    body = client.post("/score", json=SCORE, headers={"X-Request-Id": "mine"}).json()
    assert list(body) == ["id", "object", "created", "model", "data", "usage"]
    assert (body["id"], body["object"], body["model"]) == ("score-mine", "list", "tiny")
    assert begin <= body["created"] <= time.time()
    assert [list(entry) for entry in body["data"]] == [["index", "object", "score"]] * len(PASSAGES)
    assert [(entry["index"], entry["object"]) for entry in body["data"]] == [
        (index, "score") for index in range(len(PASSAGES))
    ]
    assert body["usage"] == {
        "prompt_tokens": tokens(),
        "total_tokens": tokens(),
        "completion_tokens": 0,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }


@pytest.mark.parametrize("path", ["/rerank", "/score", "/v1/score"])
@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {"normalize": True}),
        ({"use_activation": None, "model": None, "user": None}, {"normalize": True}),
        ({"use_activation": False}, {}),
        ({"use_activation": False, "truncate_prompt_tokens": -1}, {}),
        ({"use_activation": False, "truncate_prompt_tokens": 20}, {"max_length": 20}),
        (
            {"use_activation": False, "truncate_prompt_tokens": 20, "truncation_side": "left"},
            {"max_length": 20, "truncation_side": "left"},
        ),
        ({"use_activation": False, "truncation_side": "left"}, {"truncation_side": "left"}),
        ({"use_activation": False, "max_tokens_per_doc": 5}, {"passage_max_length": 5}),
        ({"max_tokens_per_doc": 0, "return_documents": False, "unknown": 1}, {"normalize": True}),
        ({"max_tokens_per_doc": None, "truncate_prompt_tokens": None}, {"normalize": True}),
    ],
)
def test_the_scores_of_the_scorer(
    client: httpx2.Client, path: str, fields: dict[str, Any], options: dict[str, Any]
) -> None:
    assert by_index(post(client, path, **fields)) == scores(**options)


@pytest.mark.parametrize(("top_n", "count"), [(2, 2), (0, 6), (None, 6), (100, 6), (10**30, 6)])
def test_top_n(client: httpx2.Client, top_n: int | None, count: int) -> None:
    whole = post(client).json()["results"]
    assert post(client, top_n=top_n).json()["results"] == whole[:count]


def test_one_document(client: httpx2.Client) -> None:
    assert by_index(post(client, documents="hi")) == scores(passages=["hi"], normalize=True)


@pytest.mark.parametrize(
    ("first", "second"),
    [("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2")],
)
def test_names_of_both_sides(client: httpx2.Client, first: str, second: str) -> None:
    response = client.post("/score", json={first: QUERY, second: ["hi", "Pandas eat bamboo."]})
    assert by_index(response) == scores(passages=["hi", "Pandas eat bamboo."], normalize=True)


def test_pairs(client: httpx2.Client) -> None:
    queries, passages = ["what is a panda?", "hello"], ["hi", "Pandas eat bamboo."]
    ranked = by_index(client.post("/score", json={"queries": queries, "documents": passages}))
    for index in range(2):
        assert {0: ranked[index]} == scores(queries[index], passages[index : index + 1], normalize=True)


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize("content", NO_JSON)
def test_what_is_no_json(client: httpx2.Client, path: str, content: bytes) -> None:
    """On /rerank such a body, which can't be read, has TEI's answer."""
    response = client.post(path, content=content, headers={"Content-Type": "application/json"})
    error = error_of(response)
    assert (response.status_code, error["type"], error["param"]) == (400, "Bad Request", None)
    assert error["message"].startswith("1 validation error:\n  ")


@pytest.mark.parametrize("content", NO_OBJECT)
def test_json_that_is_no_object(client: httpx2.Client, content: bytes) -> None:
    response = client.post("/score", content=content, headers={"Content-Type": "application/json"})
    assert (response.status_code, error_of(response)["type"]) == (400, "Bad Request")


@pytest.mark.parametrize("path", ["/rerank", "/score"])
@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"documents": 1}, "documents"),
        ({"documents": ["hi", 1]}, "documents.1"),
        ({"documents": [{"text": "hi"}]}, "documents.0"),
        ({"model": 1}, "model"),
        ({"truncate_prompt_tokens": "5"}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"truncation_side": "Left"}, "truncation_side"),
        ({"use_activation": 1}, "use_activation"),
        ({"max_tokens_per_doc": -1}, "max_tokens_per_doc"),
        ({"max_tokens_per_doc": 1.5}, "max_tokens_per_doc"),
    ],
)
def test_a_wrong_type(client: httpx2.Client, path: str, fields: dict[str, Any], place: str) -> None:
    response = post(client, path, **fields)
    error = error_of(response)
    assert (response.status_code, error["type"], error["param"]) == (400, "Bad Request", f"body.{place}")
    assert error["message"].startswith(f"1 validation error:\n  {place}: Input should be ")


@pytest.mark.parametrize(
    ("path", "body", "missing"),
    [
        ("/rerank", {"documents": ["a"]}, "query"),
        ("/score", {"documents": ["a"]}, "queries"),
        ("/score", {"queries": "a"}, "documents"),
        ("/score", {"text_1": "a"}, "text_2"),
        ("/score", {"data_2": "a"}, "data_1"),
        ("/score", {"queries": "a", "text_2": "a"}, "documents"),
    ],
)
def test_a_missing_field(client: httpx2.Client, path: str, body: dict[str, Any], missing: str) -> None:
    response = client.post(path, json=body)
    assert response.status_code == 400
    assert error_of(response) == {
        "message": f"1 validation error:\n  {missing}: Field required",
        "type": "Bad Request",
        "param": f"body.{missing}",
        "code": 400,
    }


def test_without_any_texts_all_names_of_them_are_told(client: httpx2.Client) -> None:
    error = error_of(client.post("/score", json={"model": "tiny"}))
    assert (error["code"], error["param"]) == (400, None)
    assert "queries and documents, queries and items, data_1 and data_2" in error["message"]


@pytest.mark.parametrize(
    ("path", "fields", "status", "message", "kind"),
    [
        (
            "/rerank",
            {"documents": []},
            400,
            "At least one text_pair element must be given",
            "BadRequestError",
        ),
        ("/score", {"documents": []}, 400, "At least one text_pair element must be given", "BadRequestError"),
        ("/score", {"queries": []}, 400, "At least one text element must be given", "BadRequestError"),
        (
            "/score",
            {"queries": ["a", "b", "c"], "documents": ["d", "e"]},
            400,
            "Input lengths must be either 1:1, 1:N or N:N",
            "BadRequestError",
        ),
        ("/rerank", {"model": "x"}, 404, UNKNOWN_MODEL, "NotFoundError"),
        ("/score", {"model": "x"}, 404, UNKNOWN_MODEL, "NotFoundError"),
        (
            "/rerank",
            {"documents": ["hi"] * (MAX_PASSAGES + 1)},
            413,
            TOO_MANY,
            "RequestEntityTooLarge",
        ),
        (
            "/score",
            {"documents": ["x" * MAX_BODY_BYTES]},
            413,
            TOO_LARGE,
            "RequestEntityTooLarge",
        ),
        (
            "/rerank",
            {"model": "broken"},
            400,
            "pair 0: its score is nan; are the model's weights whole?",
            "BadRequestError",
        ),
    ],
)
def test_a_request_that_can_not_be_met(
    strict: httpx2.Client, path: str, fields: dict[str, Any], status: int, message: str, kind: str
) -> None:
    response = post(strict, path, **({"documents": ["hi"]} | fields))
    assert response.status_code == status
    assert error_of(response) == {"message": message, "type": kind, "param": None, "code": status}


def test_more_tokens_than_the_model_has_positions(client: httpx2.Client) -> None:
    response = post(client, documents=[LONG], truncate_prompt_tokens=100_000)
    assert (response.status_code, error_of(response)["type"]) == (400, "BadRequestError")


def test_empty_texts_are_scored(client: httpx2.Client) -> None:
    assert by_index(post(client, query="", documents=[""])) == scores("", [""], normalize=True)


@pytest.mark.parametrize("media_type", ["text/json", "text/plain", None])
def test_another_media_type(client: httpx2.Client, media_type: str | None) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    response = client.post("/score", content=b'{"queries": "a", "documents": ["b"]}', headers=headers)
    assert response.status_code == 400
    message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
    assert error_of(response) == {"message": message, "type": "Bad Request", "param": None, "code": 400}


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer no"}, {"Authorization": f"Basic {KEY}"}])
@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_without_the_key(guarded: LocalServer, path: str, headers: dict[str, str]) -> None:
    response = httpx2.post(guarded.url + path, headers=headers, content=b"not even JSON")
    told = WRONG_KEY if headers else "needs an API key: `Authorization: Bearer KEY`"
    assert (response.status_code, response.json()) == (401, {"error": f"Unauthorized: {told}"})


@pytest.mark.parametrize(
    ("kind", "status", "name"),
    [
        ("overloaded", 429, "TooManyRequests"),
        ("rate_limit", 429, "TooManyRequests"),
        ("unavailable", 503, "Service Unavailable"),
        ("internal", 500, "InternalServerError"),
        ("timeout", 408, "RequestTimeout"),
        ("forbidden", 403, "PermissionDeniedError"),
        ("too_long", 400, "BadRequestError"),
    ],
)
def test_what_befalls_a_server(kind: Kind, status: int, name: str) -> None:
    info = {"message": "why", "type": name, "param": None, "code": status}
    assert vllm.error(Problem(kind, "why"), "an-id") == (status, {"error": info})
