"""What a shard's scores and ranks look like, in a few numbers that add up exactly over shards."""

import math
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

BINS = 128
_FINEST, _MOST_BIN_NUMBER = -16, 2**40


class Distribution(BaseModel):
    """Counts of values in bins of one width, a power of two: bin k holds [k * width, (k + 1) * width).

    The width is the smallest that needs no more than BINS bins from the least to the largest value, so the
    sum over shards is the same in any order, and what one shard with all the values would say.
    """

    model_config = ConfigDict(frozen=True)

    least: float = 0.0
    largest: float = 0.0
    exponent: int = _FINEST
    first: int = 0
    """Number of the bin that counts[0] is of."""
    counts: tuple[int, ...] = ()
    """Empty where there are no values: the other fields then say nothing."""

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Self:
        if not len(values):
            return cls()
        least, largest = float(values.min()), float(values.max())
        exponent = _exponent(least, largest)
        bins = np.floor(np.ldexp(values.astype(np.float64), -exponent)).astype(np.int64)
        first = int(bins.min())
        counts = tuple(np.bincount(bins - first).tolist())
        return cls(least=least, largest=largest, exponent=exponent, first=first, counts=counts)

    @property
    def total(self) -> int:
        return sum(self.counts)

    @property
    def width(self) -> float:
        return math.ldexp(1, self.exponent)

    def plus(self, other: Self) -> Self:
        if not self.counts or not other.counts:
            return self if self.counts else other
        least, largest = min(self.least, other.least), max(self.largest, other.largest)
        exponent = _exponent(least, largest)
        first, last = _bin(least, exponent), _bin(largest, exponent)
        counts = [0] * (last - first + 1)
        for one in (self, other):
            for number, count in enumerate(one.counts, start=one.first):
                counts[(number >> (exponent - one.exponent)) - first] += count
        return type(self)(least=least, largest=largest, exponent=exponent, first=first, counts=tuple(counts))

    def quantile(self, share: float) -> float:
        """The value below which that share of the values lies, to within a bin's width."""
        wanted, before = share * self.total, 0
        for number, count in enumerate(self.counts, start=self.first):
            if count and before + count >= wanted:
                value = (number + (wanted - before) / count) * self.width
                return min(max(value, self.least), self.largest)
            before += count
        return self.largest


def _bin(value: float, exponent: int) -> int:
    return math.floor(math.ldexp(value, -exponent))


def _exponent(least: float, largest: float) -> int:
    exponent = _FINEST
    while _bin(largest, exponent) - _bin(least, exponent) >= BINS or max(
        abs(least), abs(largest)
    ) >= math.ldexp(_MOST_BIN_NUMBER, exponent):
        exponent += 1
    return exponent


PLACES = (1, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Last place of each bin of places, within a query; one more bin holds what lies behind."""


class RankChanges(BaseModel):
    """How far scoring moved candidates within their query: from their place among its rows of the input, the
    first stage's order, to their rank. Rejected rows have no place, rows cut by top_k have one.
    """

    model_config = ConfigDict(frozen=True)

    up: int = 0
    same: int = 0
    down: int = 0
    distance: int = 0
    """Places moved, all candidates together."""
    moves: tuple[tuple[int, ...], ...] = ((0,) * (len(PLACES) + 1),) * (len(PLACES) + 1)
    """[bin of the rank][bin of the place before]: candidates."""

    @classmethod
    def of(cls, places: npt.NDArray[np.int64], ranks: npt.NDArray[np.int64]) -> Self:
        """Both 1-based, an entry a candidate."""
        size = len(PLACES) + 1
        cells = np.searchsorted(PLACES, ranks) * size + np.searchsorted(PLACES, places)
        moves = np.bincount(cells, minlength=size * size).reshape(size, size)
        moved = places - ranks
        return cls(
            up=int((moved > 0).sum()),
            same=int((moved == 0).sum()),
            down=int((moved < 0).sum()),
            distance=int(np.abs(moved).sum()),
            moves=tuple(map(tuple, moves.tolist())),
        )

    @property
    def total(self) -> int:
        return self.up + self.same + self.down

    def plus(self, other: Self) -> Self:
        return type(self)(
            up=self.up + other.up,
            same=self.same + other.same,
            down=self.down + other.down,
            distance=self.distance + other.distance,
            moves=tuple(
                tuple(map(sum, zip(mine, theirs, strict=True)))
                for mine, theirs in zip(self.moves, other.moves, strict=True)
            ),
        )

    def stayed_in_top(self, place: int) -> float:
        """Share of the candidates ranked among the top `place`, one of PLACES, that stood there before."""
        bins = PLACES.index(place) + 1
        ranked = sum(sum(row) for row in self.moves[:bins])
        stayed = sum(sum(row[:bins]) for row in self.moves[:bins])
        return stayed / ranked if ranked else 0.0


MOVERS = 10
"""Queries that a job tells of, and each of its shards."""


class Mover(BaseModel):
    """A query that has a new first passage."""

    model_config = ConfigDict(frozen=True)

    query_id: str
    """Ids are as a TREC file has them."""
    first_id: str
    """Of its new first passage."""
    came_from: int
    """The place where that stood before, 1-based."""
    former_id: str
    """Of the passage that was first before."""
    fell_to: int
    """The rank that this one has now."""
    first_at: int
    """Its position among the candidates of the shard, from 0, by which its texts are found."""
    former_at: int
    """Likewise of the former one."""
