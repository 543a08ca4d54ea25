"""Pure: which of the waiting pairs go through the model next.

Oldest first, and large requests in chunks: a chunk of `chunk_tokens` waits as though it had arrived
when the device had read twice as many tokens as lie before it in its request. A large request so takes at
most half of the device from those that come after it, and is never overtaken for ever. (Virtual arrival times
as in P. Goyal, H. Vin, H. Cheng: Start-time Fair Queuing, SIGCOMM 1996; the clock is the tokens read so far.)

Equal pairs that wait go together, when the first of them goes, and count once.
"""

from collections.abc import Hashable, Sequence
from heapq import heappop, heappush, heapreplace
from itertools import islice
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


class DistinctTokens(Generic[Request]):
    """The tokens of requests' pairs; equal pairs count once, with the first of the requests that have one."""

    def __init__(self, chunk_tokens: int) -> None:
        self._chunk_tokens = chunk_tokens
        self._requests: dict[Hashable, dict[Request, int]] = {}
        """By key, those that have such a pair, oldest first, and its tokens."""
        self._counted: dict[Request, int] = {}
        self.total = 0
        self.ahead = 0
        """Of those that go before a request that comes now: of each request no more than a chunk."""

    def __contains__(self, key: Hashable) -> bool:
        return key in self._requests

    def requests(self, key: Hashable) -> list[Request]:
        """Those that have a pair of this key, oldest first."""
        return list(self._requests[key])

    def add(self, request: Request, key: Hashable, tokens: int) -> None:
        requests = self._requests.setdefault(key, {})
        requests[request] = tokens
        if len(requests) == 1:
            self._count(request, tokens)

    def remove(self, request: Request, key: Hashable) -> None:
        requests = self._requests[key]
        was_counted = next(iter(requests)) == request
        tokens = requests.pop(request)
        if not requests:
            del self._requests[key]
        if was_counted:
            self._count(request, -tokens)
            for after in islice(requests, 1):
                self._count(after, tokens)

    def _count(self, request: Request, more: int) -> None:
        before = self._counted.pop(request, 0)
        now = before + more
        if now:
            self._counted[request] = now
        self.total += more
        self.ahead += min(now, self._chunk_tokens) - min(before, self._chunk_tokens)


class _Waiting(Generic[Request]):
    """A request. Places are those in `order`."""

    def __init__(
        self, request: Request, lengths: npt.NDArray[np.int64], keys: Sequence[Hashable], arrived_at: int
    ) -> None:
        self.request = request
        self.order = np.argsort(-lengths, kind="stable")  # pairs of like lengths stand together
        self.lengths = lengths[self.order]
        self.keys = [keys[pair] for pair in self.order]
        self.places = {key: place for place, key in enumerate(self.keys)}
        self.before = np.cumsum(self.lengths) - self.lengths
        self.waits = np.ones(len(lengths), np.bool_)
        self.first = 0
        """The first place that waits, or the number of places."""
        self.arrived_at = arrived_at

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
        self._turns: list[tuple[int, int, Request]] = []
        self.tokens: DistinctTokens[Request] = DistinctTokens(chunk_tokens)
        """Of the pairs that wait."""

    def __len__(self) -> int:
        """Requests of which pairs wait."""
        return len(self._waiting)

    def add(self, request: Request, lengths: npt.NDArray[np.int64], keys: Sequence[Hashable]) -> None:
        """lengths: (pairs,), one pair or more, the tokens of each. keys: (pairs,), by which pairs of several
        requests are equal; within a request each comes once.
        """
        waiting = _Waiting(request, lengths, keys, self._clock)
        self._waiting[request] = waiting
        for key, tokens in zip(waiting.keys, waiting.lengths.tolist(), strict=True):
            self.tokens.add(request, key, tokens)
        self._arrivals += 1
        heappush(self._turns, (waiting.turn(self._chunk_tokens), self._arrivals, request))

    def remove(self, request: Request) -> None:
        """Forget what still waits of a request, if anything does."""
        waiting = self._waiting.pop(request, None)
        if waiting is not None:
            for place in np.flatnonzero(waiting.waits):
                self.tokens.remove(request, waiting.keys[place])

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
        for request in self.tokens.requests(key):
            self.tokens.remove(request, key)
            waiting = self._waiting[request]
            place = waiting.places[key]
            waiting.leave(place)
            taken.setdefault(request, []).append(int(waiting.order[place]))
            if waiting.first == len(waiting.order):
                del self._waiting[request]
