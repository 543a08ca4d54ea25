"""Pure: from token sequences to the batches that go through the model."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

IndexArray = npt.NDArray[np.int64]

_MOST_PADDED = 8
"""The last states of so many tokens take less room than one token does at a layer's widest."""


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

    def pad(
        self, batch: IndexArray, pad_id: int, at_least: int = 1
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Token ids and attention mask of a batch, both (sequences, longest), padded on the right.

        at_least: how long the longest is taken for. A batch of empty texts still needs one position, which
        the mask then hides.
        """
        lengths = self.lengths[batch]
        mask = np.arange(max(at_least, int(lengths.max()))) < lengths[:, None]
        ids = np.full(mask.shape, pad_id, np.int64)
        ends = np.cumsum(lengths)
        ids[mask] = self.values[np.arange(ends[-1]) + np.repeat(self.starts[batch] - ends + lengths, lengths)]
        return ids, mask.astype(np.int64)


class Group(NamedTuple):
    """Sequences that are batched together."""

    members: IndexArray
    prefix: int = 0
    """How many tokens at their beginning are the same in all and are read once."""


class Batch(NamedTuple):
    """Sequences that go through the model together, longest first."""

    members: IndexArray
    prefix: int
    """Tokens that are read once beside them."""
    real_tokens: int
    longest: int
    place: tuple[int, int]
    """Its group, and the first of its members among the group's."""


class Batches:
    """Batches one after another, each of one group's sequences, cut when they are asked for."""

    def __init__(
        self, sequences: Sequences, groups: Sequence[Group], cut: Callable[[IndexArray, int], IndexArray]
    ) -> None:
        """cut: descending lengths and their prefix to the sizes of batches."""
        self._sequences, self._groups, self._cut = sequences, groups, cut
        self._place = 0, 0
        self._left, self._sizes = np.zeros(0, np.int64), list[int]()

    def next(self) -> Batch | None:
        group, first = self._place
        while group < len(self._groups):
            members, prefix = self._groups[group]
            if not self._sizes and first < len(members):
                self._left = self._sequences.longest_first(members)[first:]
                self._sizes = self._cut(self._sequences.lengths[self._left], prefix).tolist()[::-1]
            if self._sizes:
                taken, self._left = np.split(self._left, [self._sizes.pop()])
                self._place = group, first + len(taken)
                lengths = self._sequences.lengths[taken]
                return Batch(taken, prefix, int(lengths.sum()), int(lengths[0]), (group, first))
            group, first = group + 1, 0
        return None

    def go_back_to(self, batch: Batch) -> None:
        """Cut afresh from there on."""
        self._place, self._sizes = batch.place, []


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
    """Sizes of consecutive batches of no more than max_batch_tokens, or of one sequence that has more.

    lengths: descending. With padding, as a batch is laid out and its last states are read, none is
    above _MOST_PADDED times that.
    """
    ends = np.cumsum(lengths)
    firsts = [0]
    while firsts[-1] < len(lengths):
        first = firsts[-1]
        fitting = int(np.searchsorted(ends, ends[first] - lengths[first] + max_batch_tokens, side="right"))
        most = batch_size(int(lengths[first]), _MOST_PADDED * max_batch_tokens)
        firsts.append(max(first + 1, min(fitting, first + most)))
    return np.diff(firsts)


def batch_size(longest: int, max_batch_tokens: int) -> int:
    """Sequences of up to `longest` tokens that one batch holds: padded, they stay within max_batch_tokens.

    A sequence that is longer than that alone makes a batch of one.
    """
    return max(1, max_batch_tokens // max(1, longest))
