"""Pure: which queries' candidates read their common beginning once."""

import numpy as np
import numpy.typing as npt

from pipeline.scoring.batching import Group, Sequences

_FULL_BATCH_TOKENS = 8192
"""A batch of so many keeps a GPU busy. Not measured: no GPU was at hand."""


def group_by_prefix(
    sequences: Sequences, prefix_lengths: npt.NDArray[np.int32], max_batch_tokens: int
) -> list[Group]:
    """A group for each query whose candidates are worth it, and one of all others.

    prefix_lengths: of each sequence, the tokens before its passage. Reading a prefix once saves its tokens,
    but then a batch holds one query's candidates: it is done where these fill one (benchmarks/families.md).
    """
    by_prefix: dict[bytes, list[int]] = {}
    for index, (start, length) in enumerate(zip(sequences.starts, prefix_lengths, strict=True)):
        key = sequences.values[start : start + length].tobytes()
        by_prefix.setdefault(key, []).append(index)
    full = min(max_batch_tokens, _FULL_BATCH_TOKENS)
    groups, others = [], []
    for indices in by_prefix.values():
        members, prefix = np.array(indices), int(prefix_lengths[indices[0]])
        if prefix and len(members) > 1 and sequences.lengths[members].sum() - prefix * len(members) >= full:
            groups.append(Group(members, prefix))
        else:
            others += indices
    return [*groups, Group(np.array(sorted(others), np.int64))]
