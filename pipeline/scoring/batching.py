"""Pure: from the lengths of sequences to the batches that go through the model."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

IndexArray = npt.NDArray[np.int64]


def length_sorted_batches(lengths: npt.NDArray[np.int32], max_batch_tokens: int) -> Iterator[IndexArray]:
    """Indices of the sequences of each batch, the longest first.

    A batch's padded size (sequences times the longest of them) stays within max_batch_tokens; a sequence
    that is longer than that alone makes a batch of one. Sorted, a batch holds next to no padding, and the
    largest batch comes first, so that memory runs out at the start or never.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        count = max(1, max_batch_tokens // longest)
        yield order[start : start + count]
        start += count


def pad(
    sequences: pa.ListArray, batch: IndexArray, pad_id: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Token ids and attention mask of a batch, both (sequences, longest), padded on the right."""
    offsets = sequences.offsets.to_numpy()
    values = sequences.values.to_numpy()
    lengths = offsets[batch + 1] - offsets[batch]
    # A batch of empty texts still needs one position, which the mask then hides.
    shape = (len(batch), max(1, int(lengths.max())))
    ids, mask = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64)
    for row, (index, length) in enumerate(zip(batch, lengths, strict=True)):
        ids[row, :length] = values[offsets[index] : offsets[index] + length]
        mask[row, :length] = 1
    return ids, mask
