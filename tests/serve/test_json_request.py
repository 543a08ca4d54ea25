"""Bodies: room for those of all clients together, and what is no JSON."""

import httpx2
import pytest

from serve.config import ApiConfig
from serve.json_request import Room
from serve.problems import Problem


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
