"""Rows that a table has deleted while its data file still holds them, by their positions in the file."""

import base64
import hashlib
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
import numpy.typing as npt

_DECODED_AT_ONCE = 8
"""Of files that are cut into ranges side by side, each asked for its ranges one by one. Bounds memory."""
_FAST = 1
"""A level of zlib: the others take many times as long for a few bytes."""

Positions = npt.NDArray[np.int64]
"""0-based rows of a file, sorted, each once."""


@dataclass(frozen=True, slots=True)
class DeletedRows:
    """Travels with a file and its ranges, also in JSON: 2.5 bytes a row where one of 100 is deleted."""

    count: int = 0
    packed: str = ""
    """Base64 of zlib of the gaps between the positions; empty where there are none."""

    @classmethod
    def at(cls, positions: Positions) -> Self:
        if not positions.size:
            return cls()
        gaps = np.diff(positions, prepend=0).astype("<i8")
        return cls(positions.size, base64.b64encode(zlib.compress(gaps.tobytes(), _FAST)).decode())

    def positions(self) -> Positions:
        return _positions(self.packed)

    def within(self, start: int, stop: int) -> "DeletedRows":
        """Those of the file's rows [start, stop)."""
        if not self.count:
            return self
        first, last = np.searchsorted(self.positions(), (start, stop))
        return DeletedRows.at(self.positions()[first:last])

    def digest(self) -> str:
        return hashlib.sha256(self.positions().astype("<i8").tobytes()).hexdigest()[:16]


def kept(deleted: Positions, start: int, stop: int) -> npt.NDArray[np.bool_]:
    """Of the file's rows [start, stop), which are not deleted."""
    mask = np.ones(stop - start, bool)
    first, last = np.searchsorted(deleted, (start, stop))
    mask[deleted[first:last] - start] = False
    return mask


@lru_cache(_DECODED_AT_ONCE)
def _positions(packed: str) -> Positions:
    gaps = (
        np.frombuffer(zlib.decompress(base64.b64decode(packed)), "<i8") if packed else np.zeros(0, np.int64)
    )
    positions = np.cumsum(gaps, dtype=np.int64)
    positions.flags.writeable = False  # whoever asks gets this one
    return positions
