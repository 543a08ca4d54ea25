"""text-embeddings-inference: what it takes and gives, and what it says of mistakes."""

from typing import Any

import httpx2
import pytest

from serve.dialects import tei
from serve.problems import Kind, Problem
from tests.conftest import TINY
from tests.serve.dialects.conftest import KEY, MAX_BODY_BYTES, MAX_PASSAGES, TOO_LARGE, WRONG_KEY
from tests.serve.dialects.reference import LONG, NO_JSON, NO_OBJECT, PASSAGES, QUERY, scores, tokens
from tests.serve.local import LocalServer, serving

BODY = {"query": QUERY, "texts": PASSAGES}
DESERIALIZE = "Failed to deserialize the JSON body into the target type: "


def post(client: httpx2.Client, **fields: Any) -> httpx2.Response:
    return client.post("/rerank", json=BODY | fields)


def by_index(response: httpx2.Response) -> dict[int, float]:
    assert response.status_code == 200, response.text
    return {entry["index"]: entry["score"] for entry in response.json()}


def test_a_bare_array_best_first_equal_ones_by_falling_index(client: httpx2.Client) -> None:
    ranked = post(client).json()
    assert [list(entry) for entry in ranked] == [["index", "score"]] * len(PASSAGES)
    assert ranked == sorted(ranked, key=lambda entry: (-entry["score"], -entry["index"]))
    same = post(client, texts=["hi"] * 3).json()
    assert [entry["index"] for entry in same] == [2, 1, 0]


def test_texts_come_back_where_they_are_asked_for(client: httpx2.Client) -> None:
    for entry in post(client, return_text=True).json():
        assert list(entry) == ["index", "text", "score"]
        assert entry["text"] == PASSAGES[entry["index"]]


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {"normalize": True}),
        ({"raw_scores": True}, {}),
        ({"raw_scores": True, "truncation_direction": "Left"}, {"truncation_side": "left"}),
        ({"raw_scores": True, "truncation_direction": "left"}, {"truncation_side": "left"}),
        ({"raw_scores": True, "truncation_direction": "right", "truncate": True}, {}),
        ({"raw_scores": True, "truncate": None, "truncation_direction": None}, {}),
        ({"top_n": 1, "model": "tiny", "documents": ["not these"], "unknown": {}}, {"normalize": True}),
        ({"model": "default"}, {"normalize": True}),
        ({"model": None}, {"normalize": True}),
    ],
)
def test_the_scores_of_the_scorer(
    client: httpx2.Client, fields: dict[str, Any], options: dict[str, Any]
) -> None:
    assert by_index(post(client, **fields)) == scores(**options)


def test_the_side_that_is_cut_changes_the_score(client: httpx2.Client) -> None:
    left, right = (
        by_index(post(client, texts=[LONG], truncation_direction=side)) for side in ("Left", "Right")
    )
    assert abs(left[0] - right[0]) > 1e-3


def test_headers_tell_work_and_time(client: httpx2.Client) -> None:
    headers = post(client).headers
    assert int(headers["x-compute-tokens"]) == tokens()
    assert int(headers["x-compute-characters"]) == len(QUERY) * len(PASSAGES) + sum(map(len, PASSAGES))
    times = [f"x-{name}-time" for name in ("compute", "total", "tokenization", "queue", "inference")]
    assert all(int(headers[name]) >= 0 for name in times)
    assert "x-compute-tokens" not in post(client, texts=[]).headers


def test_info(client: httpx2.Client) -> None:
    info = client.get("/info").json()
    assert info["model_type"] == {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    assert (info["served_model_name"], info["max_input_length"], info["auto_truncate"]) == ("tiny", 512, True)
    assert info["max_client_batch_size"] == 1000
    assert {"max_batch_requests", "docker_label", "sha"} <= {
        name for name, value in info.items() if value is None
    }


@pytest.mark.parametrize("content", NO_JSON)
def test_what_is_no_json(client: httpx2.Client, content: bytes) -> None:
    response = client.post("/rerank", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text.startswith("Failed to parse the request body as JSON: ")
    assert " at line 1 column " in response.text


@pytest.mark.parametrize("content", NO_OBJECT)
def test_json_that_is_no_object(client: httpx2.Client, content: bytes) -> None:
    response = client.post("/rerank", content=content, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.text[: len(DESERIALIZE)]) == (422, DESERIALIZE)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"query": 1}, "query"),
        ({"query": None}, "query"),
        ({"texts": "hi"}, "texts"),
        ({"texts": ["hi", 1]}, "texts.1"),
        ({"texts": [{"text": "hi"}]}, "texts.0"),
        ({"truncate": "true"}, "truncate"),
        ({"truncate": 1}, "truncate"),
        ({"raw_scores": None}, "raw_scores"),
        ({"return_text": 0}, "return_text"),
        ({"truncation_direction": "up"}, "truncation_direction"),
        ({"model": 7}, "model"),
    ],
)
def test_a_wrong_type(client: httpx2.Client, fields: dict[str, Any], place: str) -> None:
    response = post(client, **fields)
    assert (response.status_code, response.headers["content-type"]) == (422, "text/plain; charset=utf-8")
    assert response.text.startswith(f"{DESERIALIZE}{place}: Input should be ")


@pytest.mark.parametrize(("body", "missing"), [({"texts": ["a"]}, "query")])
def test_a_missing_field(client: httpx2.Client, body: dict[str, Any], missing: str) -> None:
    response = client.post("/rerank", json=body)
    assert (response.status_code, response.text) == (422, f"{DESERIALIZE}{missing}: Field required")


@pytest.mark.parametrize("body", [{"query": "a"}, {"query": "a", "document": ["b"]}])
def test_without_passages_both_names_of_them_are_told(client: httpx2.Client, body: dict[str, Any]) -> None:
    response = client.post("/rerank", json=body)
    told = f"{DESERIALIZE}needs `texts`, or `documents` as vLLM's API has them"
    unknown = "; not known here: document" if "document" in body else ""
    assert (response.status_code, response.text) == (422, told + unknown)


def test_a_mistake_in_a_header_is_not_told_as_one_of_the_body(client: httpx2.Client) -> None:
    response = client.post("/rerank", json=BODY, headers={"X-Request-Timeout-Seconds": "soon"})
    assert (response.status_code, response.json()) == (
        422,
        {
            "error": "X-Request-Timeout-Seconds: needs a positive number of seconds",
            "error_type": "Validation",
        },
    )


@pytest.mark.parametrize(
    ("fields", "status", "body"),
    [
        ({"texts": []}, 400, {"error": "`texts` cannot be empty", "error_type": "Empty"}),
        (
            {"query": "", "texts": ["hi", ""]},
            400,
            {"error": "Input validation error: `inputs` cannot be empty", "error_type": "Empty"},
        ),
        (
            {"texts": ["hi"] * (MAX_PASSAGES + 1)},
            413,
            {"error": "batch size 5 > maximum allowed batch size 4", "error_type": "Validation"},
        ),
        (
            {"model": "nope"},
            404,
            {
                "error": "Model 'nope' not found. Available models: tiny, broken.",
                "error_type": "Validation",
            },
        ),
    ],
)
def test_a_request_that_can_not_be_met(
    strict: httpx2.Client, fields: dict[str, Any], status: int, body: dict[str, str]
) -> None:
    response = post(strict, **({"texts": ["hi"]} | fields))
    assert (response.status_code, response.json()) == (status, body)


@pytest.mark.parametrize("texts", [["hi", ""], [""]])
def test_one_empty_side_is_fine(client: httpx2.Client, texts: list[str]) -> None:
    assert by_index(post(client, texts=texts, raw_scores=True)) == scores(passages=texts)
    assert post(client, query="", texts=["hi"]).status_code == 200


def test_a_pair_that_is_too_long_and_must_not_be_cut(client: httpx2.Client) -> None:
    response = post(client, truncate=False)
    assert response.status_code == 422
    assert response.json()["error_type"] == "Validation"
    assert "don't fit" in response.json()["error"]
    assert post(client, texts=["hi"], truncate=False).status_code == 200


def test_who_allows_it_has_cut_what_the_server_would_refuse(client: httpx2.Client) -> None:
    with (
        serving({"tiny": {"model": TINY, "truncation": "error"}}) as server,
        httpx2.Client(base_url=server.url) as strict,
    ):
        assert post(strict).status_code == 422
        assert post(strict, truncate=False).status_code == 422
        assert by_index(post(strict, truncate=True)) == by_index(post(client))
        documents = {"query": QUERY, "documents": PASSAGES}
        assert strict.post("/v1/rerank", json=documents).status_code == 422
        for field in ({"truncation": True}, {"truncate_prompt_tokens": -1}):
            assert strict.post("/v1/rerank", json=documents | field).status_code == 200


def test_a_million_mistakes_are_told_as_one(client: httpx2.Client) -> None:
    response = post(client, texts=[0] * 1000)
    assert response.text == f"{DESERIALIZE}texts.0: Input should be a valid string"
    assert "texts.1:" not in response.text


def test_a_score_that_is_no_number(strict: httpx2.Client) -> None:
    response = post(strict, texts=["hi"], model="broken")
    assert response.status_code == 424
    assert response.json() == {
        "error": "pair 0: its score is nan; are the model's weights whole?",
        "error_type": "Backend",
    }


@pytest.mark.parametrize("media_type", ["text/json", "text/plain", "application/x-www-form-urlencoded", None])
def test_another_media_type(client: httpx2.Client, media_type: str | None) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    response = client.post("/rerank", content=b'{"query": "a", "texts": ["b"]}', headers=headers)
    assert response.status_code == 415
    assert response.text == "Expected request with `Content-Type: application/json`"


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "application/problem+json"])
def test_json_by_other_names(client: httpx2.Client, media_type: str) -> None:
    content = b'{"query": "a", "texts": ["b"]}'
    assert client.post("/rerank", content=content, headers={"Content-Type": media_type}).status_code == 200


def test_a_body_that_is_too_large(strict: httpx2.Client) -> None:
    text = "x" * MAX_BODY_BYTES
    chunks = iter([b'{"query": "a", "texts": ["', text.encode(), b'"]}'])
    for response in (
        post(strict, texts=[text]),
        strict.post("/rerank", content=chunks, headers={"Content-Type": "application/json"}),
    ):
        assert response.status_code == 413
        assert response.text == f"Failed to buffer the request body: length limit exceeded: {TOO_LARGE}"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer no"}, {"Authorization": f"Basic {KEY}"}])
@pytest.mark.parametrize(("method", "path"), [("POST", "/rerank"), ("GET", "/info")])
def test_without_the_key(guarded: LocalServer, method: str, path: str, headers: dict[str, str]) -> None:
    response = httpx2.request(method, guarded.url + path, headers=headers, content=b"not even JSON")
    told = WRONG_KEY if headers else "needs an API key: `Authorization: Bearer KEY`"
    error = {"error": told, "error_type": "Validation"}
    assert (response.status_code, response.json()) == (401, error)


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("overloaded", 429, {"error": "Model is overloaded", "error_type": "Overloaded"}),
        ("rate_limit", 429, {"error": "why", "error_type": "Overloaded"}),
        ("unscorable", 424, {"error": "why", "error_type": "Backend"}),
        ("internal", 424, {"error": "why", "error_type": "Backend"}),
        ("timeout", 408, {"error": "why", "error_type": "Backend"}),
        ("unavailable", 503, {"error": "why", "error_type": "Unhealthy"}),
        ("too_long", 422, {"error": "why", "error_type": "Validation"}),
        ("forbidden", 403, {"error": "why", "error_type": "Validation"}),
    ],
)
def test_what_befalls_a_server(kind: Kind, status: int, body: dict[str, str]) -> None:
    assert tei.error(Problem(kind, "why"), "an-id") == (status, body)
