"""How fast something works, learnt from what it did."""

import math


class Speed:
    """A running mean of units a second, so that one slow moment doesn't pass for the speed."""

    def __init__(self) -> None:
        self.a_second = math.inf
        """Infinite until something is noted."""
        self._full_load_s = 0.0

    def note(self, units: float, seconds: float, full_load: float) -> None:
        """Work that was done. full_load: so many units, that what any work takes is little beside them.

        Less work tells only that the speed is no lower. But where it takes longer than a full load did, the
        speed has fallen.
        """
        found, full = units / seconds, units >= full_load
        first = math.isinf(self.a_second)
        if first:
            self.a_second = found
        elif full or found > self.a_second or seconds > self._full_load_s:
            self.a_second = 0.8 * self.a_second + 0.2 * found
        if first or full:
            self._full_load_s = full_load / self.a_second
