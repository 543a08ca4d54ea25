"""Pure: from token sequences to the batches that go through the model."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

IndexArray = npt.NDArray[np.int64]


class Sequences(NamedTuple):
    """Token ids of many sequences, as slices of one array."""

    values: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    @classmethod
    def of(cls, array: pa.ListArray) -> "Sequences":
        offsets = array.offsets.to_numpy().astype(np.int64)
        return cls(array.values.to_numpy(), offsets[:-1], np.diff(offsets))

    def without_first(self, counts: npt.NDArray[np.int64]) -> "Sequences":
        """The same without the first tokens of each; nothing is copied."""
        return self._replace(starts=self.starts + counts, lengths=self.lengths - counts)

    def longest_first(self, members: IndexArray) -> IndexArray:
        """Sorted, a batch holds next to no padding, and the largest batch comes first."""
        return members[np.argsort(-self.lengths[members], kind="stable")]

    def pad(self, batch: IndexArray, pad_id: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Token ids and attention mask of a batch, both (sequences, longest), padded on the right."""
        # A batch of empty texts still needs one position, which the mask then hides.
        shape = (len(batch), max(1, int(self.lengths[batch].max())))
        ids, mask = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64)
        for row, index in enumerate(batch):
            start, length = self.starts[index], self.lengths[index]
            ids[row, :length] = self.values[start : start + length]
            mask[row, :length] = 1
        return ids, mask


class Group(NamedTuple):
    """Sequences that are batched together."""

    members: IndexArray
    prefix: int = 0
    """How many tokens at their beginning are the same in all and are read once."""


def cut(lengths: IndexArray, prefix: int, max_batch_tokens: int, call_tokens: int) -> IndexArray:
    """Sizes of consecutive batches of sequences that go longest first, so that the device is done soonest.

    lengths: descending, without the `prefix` that is read beside each. A batch takes as long as its padded
    tokens, and as `call_tokens` more for being a batch at all. Within what a batch may hold, the sizes are
    the best there are: least total by dynamic programming from the last sequence to the first.
    """
    total = np.zeros(len(lengths) + 1)
    sizes = np.zeros(len(lengths), np.int64)
    for first in range(len(lengths) - 1, -1, -1):
        most = min(batch_size(prefix + int(lengths[first]), max_batch_tokens), len(lengths) - first)
        padded = np.arange(1, most + 1) * lengths[first]
        totals = padded + total[first + 1 : first + most + 1]
        sizes[first] = best = most - int(np.argmin(totals[::-1]))  # of equals, the largest
        total[first] = totals[best - 1] + call_tokens
    firsts = [0]
    while firsts[-1] < len(lengths):
        firsts.append(firsts[-1] + int(sizes[firsts[-1]]))
    return np.diff(firsts)


def cut_without_padding(lengths: IndexArray, max_batch_tokens: int) -> IndexArray:
    """Sizes of consecutive batches of no more than max_batch_tokens, or of one sequence that has more."""
    ends = np.cumsum(lengths)
    firsts = [0]
    while firsts[-1] < len(lengths):
        first = firsts[-1]
        fitting = int(np.searchsorted(ends, ends[first] - lengths[first] + max_batch_tokens, side="right"))
        firsts.append(max(first + 1, fitting))
    return np.diff(firsts)


def batch_size(longest: int, max_batch_tokens: int) -> int:
    """Sequences of up to `longest` tokens that one batch holds: padded, they stay within max_batch_tokens.

    A sequence that is longer than that alone makes a batch of one.
    """
    return max(1, max_batch_tokens // max(1, longest))
