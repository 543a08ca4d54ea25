"""Room for the requests of all clients together."""

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
