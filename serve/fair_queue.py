"""Pure: which of the waiting pairs go through the model next.

Oldest first, and large requests in chunks: a chunk of `chunk_tokens` waits as though it had arrived
when the device had read twice as many tokens as lie before it in its request. A large request so takes at
most half of the device from those that come after it, and is never overtaken for ever. (Virtual arrival times
as in P. Goyal, H. Vin, H. Cheng: Start-time Fair Queuing, SIGCOMM 1996; the clock is the tokens read so far.)
"""

from collections.abc import Hashable
from heapq import heappop, heappush
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
    def __init__(self, request: Request, lengths: npt.NDArray[np.int64], arrived_at: int) -> None:
        self.request = request
        self.order = np.argsort(-lengths, kind="stable")  # pairs of like lengths stand together
        self.lengths = lengths[self.order]
        self.before = np.cumsum(self.lengths) - self.lengths
        self.arrived_at = arrived_at
        self.taken = 0
        self.tokens = int(self.lengths.sum())

    def turn(self, chunk_tokens: int) -> int:
        """The clock's time at which the next pair may go."""
        chunk = int(self.before[self.taken]) // chunk_tokens
        return self.arrived_at + _SLOWER * chunk * chunk_tokens


class FairQueue(Generic[Request]):
    """Requests that wait, as the tokens of their pairs."""

    def __init__(self, chunk_tokens: int) -> None:
        self._chunk_tokens = chunk_tokens
        self._clock = 0
        self._arrivals = 0
        self._waiting: dict[Request, _Waiting[Request]] = {}
        self._turns: list[tuple[int, int, Request]] = []
        self.tokens = 0
        """Of all the pairs that wait."""
        self.tokens_ahead = 0
        """Of those that go before a request that comes now: of each request no more than a chunk."""

    def __len__(self) -> int:
        """Requests of which pairs wait."""
        return len(self._waiting)

    def add(self, request: Request, lengths: npt.NDArray[np.int64]) -> None:
        """lengths: (pairs,), one pair or more, the tokens of each."""
        waiting = _Waiting(request, lengths, self._clock)
        self._waiting[request] = waiting
        self._count(waiting.tokens, 0)
        self._arrivals += 1
        heappush(self._turns, (waiting.turn(self._chunk_tokens), self._arrivals, request))

    def remove(self, request: Request) -> None:
        """Forget what still waits of a request, if anything does."""
        waiting = self._waiting.pop(request, None)
        if waiting is not None:
            self._count(0, waiting.tokens)

    def take(self, max_tokens: int) -> list[Chunk[Request]]:
        """The next pairs, of max_tokens together, or one that alone has more."""
        chunks: list[Chunk[Request]] = []
        room = max_tokens
        while self._turns:
            _, arrival, request = self._turns[0]
            waiting = self._waiting.get(request)
            if waiting is None:  # removed
                heappop(self._turns)
                continue
            if chunks and waiting.lengths[waiting.taken] > room:
                break
            heappop(self._turns)
            before = self.tokens
            chunks.append(Chunk(request, self._take_from(waiting, room)))
            room -= before - self.tokens
            if waiting.taken == len(waiting.order):
                del self._waiting[request]
            else:
                heappush(self._turns, (waiting.turn(self._chunk_tokens), arrival, request))
        return chunks

    def _take_from(self, waiting: _Waiting[Request], room: int) -> npt.NDArray[np.int64]:
        """Pairs of `room` tokens, but at least one, and no more than what is left of the chunk."""
        first = waiting.taken
        begin = int(waiting.before[first])
        end = (begin // self._chunk_tokens + 1) * self._chunk_tokens
        fitting = int(np.searchsorted(waiting.before + waiting.lengths, begin + room, side="right"))
        last = min(max(first + 1, fitting), int(np.searchsorted(waiting.before, end)))
        waiting.taken = last
        tokens = int(waiting.lengths[first:last].sum())
        self._count(waiting.tokens - tokens, waiting.tokens)
        waiting.tokens -= tokens
        self._clock += tokens
        return waiting.order[first:last]

    def _count(self, now: int, before: int) -> None:
        """A request has `now` tokens waiting where it had `before`."""
        self.tokens += now - before
        self.tokens_ahead += min(now, self._chunk_tokens) - min(before, self._chunk_tokens)
