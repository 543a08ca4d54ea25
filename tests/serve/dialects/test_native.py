"""POST /rank: the server's own words."""

from typing import Any

import httpx2
import pytest

from tests.serve.dialects.conftest import MAX_PASSAGES
from tests.serve.dialects.reference import LONG, NO_JSON, PASSAGES, QUERY, scores, tokens

BODY = {"query": QUERY, "passages": PASSAGES}


def post(client: httpx2.Client, **fields: Any) -> httpx2.Response:
    return client.post("/rank", json=BODY | fields)


def by_index(response: httpx2.Response) -> dict[int, float]:
    assert response.status_code == 200, response.text
    return {entry["index"]: entry["score"] for entry in response.json()["ranked"]}


def test_the_answer(client: httpx2.Client) -> None:
    body = post(client).json()
    assert list(body) == ["id", "model", "normalizes", "tokens", "timings", "ranked"]
    assert (body["model"], body["normalizes"], body["tokens"]) == ("tiny", True, tokens())
    assert all(seconds >= 0 for seconds in body["timings"].values())
    ranked = body["ranked"]
    assert [entry["rank"] for entry in ranked] == list(range(1, len(PASSAGES) + 1))
    assert ranked == sorted(ranked, key=lambda entry: (-entry["score"], entry["index"]))


def test_what_was_cut_is_told(client: httpx2.Client) -> None:
    (entry,) = post(client, passages=[LONG]).json()["ranked"]
    assert (entry["query_cut"], entry["first_character"]) == (0, 0)
    assert 0 < entry["last_character"] < len(LONG)
    assert entry["passage_cut"] > 0
    (whole,) = post(client, passages=["hi"]).json()["ranked"]
    assert (whole["passage_cut"], whole["last_character"]) == (0, 2)


@pytest.mark.parametrize(
    ("fields", "options"), [({}, {}), ({"normalize": True}, {"normalize": True}), ({"model": None}, {})]
)
def test_the_scores_of_the_scorer(
    client: httpx2.Client, fields: dict[str, Any], options: dict[str, Any]
) -> None:
    assert by_index(post(client, **fields)) == scores(**options)


def test_a_cutoff_layer_is_chosen_and_the_last_is_the_default(client: httpx2.Client) -> None:
    fields = {"model": "layers", "passages": ["Pandas eat bamboo."]}
    by_layer = {layer: by_index(post(client, cutoff_layer=layer, **fields))[0] for layer in (2, 3, 4, None)}
    assert by_layer[None] == pytest.approx(by_layer[4], abs=1e-5)
    assert abs(by_layer[2] - by_layer[4]) > 1e-3


def test_a_field_that_it_does_not_have_is_refused(client: httpx2.Client) -> None:
    answer = post(client, topk=3)
    assert answer.status_code == 422
    assert answer.json()["field"] == "topk"


@pytest.mark.parametrize(("top_k", "count"), [(2, 2), (None, 6), (100, 6)])
def test_top_k(client: httpx2.Client, top_k: int | None, count: int) -> None:
    assert len(post(client, top_k=top_k).json()["ranked"]) == count


@pytest.mark.parametrize("content", NO_JSON)
def test_what_is_no_json(client: httpx2.Client, content: bytes) -> None:
    response = client.post("/rank", content=content, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["kind"]) == (400, "json")


@pytest.mark.parametrize(
    ("fields", "status", "kind", "field"),
    [
        ({"passages": []}, 422, "invalid", "passages"),
        ({"passages": ["a", None]}, 422, "invalid", "passages.1"),
        ({"top_k": 0}, 422, "invalid", "top_k"),
        ({"cutoff_layer": 2}, 422, "invalid", "cutoff_layer"),
        ({"model": "nope"}, 404, "unknown_model", "model"),
        ({"model": "x" * 1000}, 404, "unknown_model", "model"),
        ({"model": "broken"}, 422, "unscorable", None),
        ({"passages": ["hi"] * (MAX_PASSAGES + 1)}, 413, "too_many", None),
    ],
)
def test_a_request_that_can_not_be_met(
    strict: httpx2.Client, fields: dict[str, Any], status: int, kind: str, field: str | None
) -> None:
    response = post(strict, **({"passages": ["hi"]} | fields))
    body = response.json()
    assert list(body) == ["error", "kind", "field", "request_id"]
    assert (response.status_code, body["kind"], body["field"]) == (status, kind, field)
    assert kind != "too_many" or body["error"].startswith("5 passages are more than the 4 allowed (api.max_")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"passages": []}, "passages: Needs at least 1 item"),
        ({"topk": 1}, "topk: There is no such field"),
    ],
)
def test_a_mistake_is_told_in_plain_words(
    strict: httpx2.Client, fields: dict[str, Any], message: str
) -> None:
    assert post(strict, **({"passages": ["hi"]} | fields)).json()["error"] == message
