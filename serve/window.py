"""So many in any minute: what a limit allows."""

import time
from collections import deque
from collections.abc import Callable

_MINUTE_S = 60.0
_SLICE_S = 0.05


class Window:
    """So many in any minute, wherever that begins."""

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._now = now
        self._taken: deque[tuple[float, int]] = deque()
        """How many in each twentieth of a second, and when that ends: no more entries, however many ask."""
        self._total = 0

    def wait_s(self, amount: int) -> float:
        """How long until `amount`, which is no more than a minute's, may be taken; 0 for now."""
        now = self._now()
        while self._taken and self._taken[0][0] + _MINUTE_S <= now:
            self._total -= self._taken.popleft()[1]
        excess, wait_s = self._total + amount - self.per_minute, 0.0
        for end, taken in self._taken:
            if excess <= 0:
                break
            excess -= taken
            wait_s = end + _MINUTE_S - now
        return wait_s

    def take(self, amount: int) -> None:
        end = (self._now() // _SLICE_S + 1) * _SLICE_S
        before = self._taken.pop()[1] if self._taken and self._taken[-1][0] == end else 0
        self._taken.append((end, before + amount))
        self._total += amount
