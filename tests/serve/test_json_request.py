"""Bodies: room for those of all clients together, and what is no JSON."""

import codecs
import gzip
import json
import weakref
from typing import Any

import httpx2
import pytest

from serve import json_request
from serve.config import ApiConfig
from serve.json_request import Room
from serve.problems import Problem
from serve.work import Refused, Work
from tests.conftest import TINY
from tests.serve.local import serving


def test_bodies_together_are_bounded_in_size_and_leave_their_room_behind() -> None:
    room = Room(ApiConfig(keys="none", max_body_bytes=2000, max_buffered_bytes=3000))
    with room.request() as first:
        first.add(1500)
        with room.request() as second:
            second.add(1400)
            with pytest.raises(Problem, match="too large together") as caught:
                second.add(200)
        assert (caught.value.kind, caught.value.retry_after_s) == ("overloaded", 1)
        with room.request() as third:
            third.add(1500)
            with pytest.raises(Problem, match="too large together"):
                first.add(1)
    with room.request() as alone:
        alone.add(2000)
        with pytest.raises(Problem, match="larger than the 2000 bytes allowed"):
            alone.add(1)


def test_requests_are_bounded_in_number() -> None:
    room = Room(ApiConfig(keys="none", max_requests=1))
    with room.request(), pytest.raises(Problem, match="too many requests at once"), room.request():
        pass
    with room.request():
        pass


def test_a_body_in_another_encoding_is_told_as_such(client: httpx2.Client) -> None:
    body = '{"query": "Käse", "passages": ["a"]}'
    sent = {"Content-Type": "application/json"}
    told = client.post("/rank", content=body.encode("latin-1"), headers=sent)
    assert (told.status_code, told.json()["kind"]) == (400, "json")
    assert told.json()["error"].endswith(": the body must be UTF-8")
    told = client.post("/rank", content=body.encode() + b"}", headers=sent)
    assert (told.status_code, "UTF-8" in told.text) == (400, False)


def test_a_compressed_body_is_told_as_such_and_a_mark_is_passed_over(client: httpx2.Client) -> None:
    body = b'{"query": "q", "passages": ["a"]}'
    sent = {"Content-Type": "application/json"}
    told = client.post("/rank", content=gzip.compress(body), headers=sent | {"Content-Encoding": "gzip"})
    assert (told.status_code, told.json()["kind"]) == (415, "media_type")
    assert told.json()["error"] == "Content-Encoding gzip: send the body as it is, not compressed"
    for content, encoding in ((codecs.BOM_UTF8 + body, "identity"), (body, "Identity")):
        answer = client.post("/rank", content=content, headers=sent | {"Content-Encoding": encoding})
        assert answer.status_code == 200


class Marked(dict[str, Any]):
    """An object of a body. One can ask whether it is still there."""


def test_what_no_field_takes_does_not_wait_for_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, left = list[weakref.ref[Marked]](), list[bool]()

    def marking(body: bytes, **_options: Any) -> Any:
        parsed = json.loads(body)
        parsed["x"] = Marked()
        kept.append(weakref.ref(parsed["x"]))
        return parsed

    async def score(_work: Work) -> Refused:
        left.append(kept[-1]() is not None)
        return Refused("overloaded", "full", 1.0)

    monkeypatch.setattr(json_request, "from_json", marking)
    with serving({"tiny": {"model": TINY}}) as server, httpx2.Client(base_url=server.url) as client:
        monkeypatch.setattr(server.models["tiny"], "score", score)
        for path, noun in {"/rerank": "texts", "/v1/rerank": "documents", "/v2/rerank": "documents"}.items():
            assert client.post(path, json={"query": "q", noun: ["a"], "x": {}}).status_code == 429
    assert left == [False] * 3


def test_the_objects_of_a_body_count_as_what_they_take() -> None:
    """A field that is taken may hold anything beside what is read of it."""
    document = {"text": "a", "x": [{}] * 4000}
    with serving({"tiny": {"model": TINY}}, max_body_bytes=20_000, max_buffered_bytes=100_000) as server:
        for body, status in (({"documents": [document]}, 413), ({"documents": ["a" * 12_000]}, 200)):
            answer = httpx2.post(f"{server.url}/v1/rerank", json={"query": "q"} | body, timeout=30)
            assert answer.status_code == status
            # It is no use to send it again.
            assert status == 200 or "take more memory than the 100000 bytes allowed" in answer.text
            assert "retry-after" not in answer.headers


def test_objects_of_several_bodies_wait_for_room() -> None:
    room = Room(ApiConfig(keys="none", max_body_bytes=2000, max_buffered_bytes=3000))
    with room.request() as first, room.request() as second:
        first.keep([{}] * 20)
        with pytest.raises(Problem, match="too large together") as caught:
            second.keep([{}] * 20)
        assert (caught.value.kind, caught.value.retry_after_s) == ("overloaded", 1)
