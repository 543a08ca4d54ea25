"""Pure: which of the waiting pairs go through the model next.

Oldest first, and large requests in chunks: a chunk of `chunk_tokens` waits as though it had arrived
when the device had read twice as many tokens as lie before it in its request. A large request so takes at
most half of the device from those that come after it, and is never overtaken for ever. (Virtual arrival times
as in P. Goyal, H. Vin, H. Cheng: Start-time Fair Queuing, SIGCOMM 1996; the clock is the tokens read so far.)

Equal pairs that wait go together, when the first of them goes, and count once.
"""

from collections.abc import Hashable, Sequence
from heapq import heappop, heappush, heapreplace
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Request = TypeVar("Request", bound=Hashable)
_SLOWER = 2
"""How much slower than the device could read it a large request's chunks arrive."""


class Chunk(NamedTuple, Generic[Request]):
    """Pairs of one request that are scored together."""

    request: Request
    pairs: npt.NDArray[np.int64]
    """Their positions in the request."""


class _Waiting(Generic[Request]):
    """A request. Places are those in `order`."""

    def __init__(
        self, request: Request, lengths: npt.NDArray[np.int64], keys: Sequence[Hashable], arrived_at: int
    ) -> None:
        self.request = request
        self.order = np.argsort(-lengths, kind="stable")  # pairs of like lengths stand together
        self.lengths = lengths[self.order]
        self.keys = [keys[pair] for pair in self.order]
        self.before = np.cumsum(self.lengths) - self.lengths
        self.waits = np.ones(len(lengths), np.bool_)
        self.first = 0
        """The first place that waits, or the number of places."""
        self.arrived_at = arrived_at
        self.tokens = 0
        """Of the pairs that wait, but for those that an earlier request waits for, too."""

    def turn(self, chunk_tokens: int) -> int:
        """The clock's time at which the next pair may go."""
        chunk = int(self.before[self.first]) // chunk_tokens
        return self.arrived_at + _SLOWER * chunk * chunk_tokens

    def fitting(self, room: int, chunk_tokens: int) -> npt.NDArray[np.int64]:
        """Places that wait, of `room` tokens, but at least one, no further than the chunk goes."""
        end = (int(self.before[self.first]) // chunk_tokens + 1) * chunk_tokens
        last = int(np.searchsorted(self.before, end))
        places = self.first + np.flatnonzero(self.waits[self.first : last])
        number = int(np.searchsorted(np.cumsum(self.lengths[places]), room, side="right"))
        return places[: max(1, number)]

    def leave(self, place: int) -> None:
        self.waits[place] = False
        if place == self.first:
            left = self.waits[place:]
            next_one = int(left.argmax())
            self.first = place + (next_one if left[next_one] else len(left))


class FairQueue(Generic[Request]):
    """Requests that wait, as the tokens of their pairs."""

    def __init__(self, chunk_tokens: int) -> None:
        self._chunk_tokens = chunk_tokens
        self._clock = 0
        self._arrivals = 0
        self._waiting: dict[Request, _Waiting[Request]] = {}
        self._equal: dict[Hashable, dict[Request, int]] = {}
        """By key, the requests of which a pair waits, oldest first, and its place. The first counts it."""
        self._turns: list[tuple[int, int, Request]] = []
        self.tokens = 0
        """Of all the pairs that wait, equal ones once."""
        self.tokens_ahead = 0
        """Of those that go before a request that comes now: of each request no more than a chunk."""

    def __len__(self) -> int:
        """Requests of which pairs wait."""
        return len(self._waiting)

    def __contains__(self, key: Hashable) -> bool:
        """Whether a pair of this key waits."""
        return key in self._equal

    def add(self, request: Request, lengths: npt.NDArray[np.int64], keys: Sequence[Hashable]) -> None:
        """lengths: (pairs,), one pair or more, the tokens of each. keys: (pairs,), by which pairs of several
        requests are equal; within a request each comes once.
        """
        waiting = _Waiting(request, lengths, keys, self._clock)
        self._waiting[request] = waiting
        new = 0
        for place, key in enumerate(waiting.keys):
            requests = self._equal.setdefault(key, {})
            new += 0 if requests else int(waiting.lengths[place])
            requests[request] = place
        self._count(waiting, new)
        self._arrivals += 1
        heappush(self._turns, (waiting.turn(self._chunk_tokens), self._arrivals, request))

    def remove(self, request: Request) -> None:
        """Forget what still waits of a request, if anything does."""
        waiting = self._waiting.pop(request, None)
        if waiting is None:
            return
        self._count(waiting, -waiting.tokens)
        for place in np.flatnonzero(waiting.waits):
            requests = self._equal[waiting.keys[place]]
            was_counted = next(iter(requests)) == request
            del requests[request]
            if not requests:
                del self._equal[waiting.keys[place]]
            elif was_counted:
                self._count(self._waiting[next(iter(requests))], int(waiting.lengths[place]))

    def take(self, max_tokens: int) -> list[Chunk[Request]]:
        """The next pairs, of max_tokens together, or one that alone has more; and all that equal them."""
        taken: dict[Request, list[int]] = {}
        room = max_tokens
        while self._turns:
            turn, arrival, request = self._turns[0]
            waiting = self._waiting.get(request)
            if waiting is None:  # removed, or taken with its equals
                heappop(self._turns)
                continue
            if turn < (now := waiting.turn(self._chunk_tokens)):  # some were taken with their equals
                heapreplace(self._turns, (now, arrival, request))
                continue
            if taken and waiting.lengths[waiting.first] > room:
                break
            heappop(self._turns)
            places = waiting.fitting(room, self._chunk_tokens)
            tokens = int(waiting.lengths[places].sum())
            room -= tokens
            self._clock += tokens
            for place in places:
                self._take(waiting.keys[place], taken)
            if request in self._waiting:
                heappush(self._turns, (waiting.turn(self._chunk_tokens), arrival, request))
        return [Chunk(request, np.array(pairs, np.int64)) for request, pairs in taken.items()]

    def _take(self, key: Hashable, taken: dict[Request, list[int]]) -> None:
        """The pairs of a key."""
        for number, (request, place) in enumerate(self._equal.pop(key).items()):
            waiting = self._waiting[request]
            if number == 0:
                self._count(waiting, -int(waiting.lengths[place]))
            waiting.leave(place)
            taken.setdefault(request, []).append(int(waiting.order[place]))
            if waiting.first == len(waiting.order):
                del self._waiting[request]

    def _count(self, waiting: _Waiting[Request], more: int) -> None:
        """A request has so many tokens more that wait."""
        now = waiting.tokens + more
        self.tokens += more
        self.tokens_ahead += min(now, self._chunk_tokens) - min(waiting.tokens, self._chunk_tokens)
        waiting.tokens = now
