import numpy as np
import pyarrow as pa

from pipeline.scoring.batching import Sequences
from pipeline.scoring.prefix import group_by_prefix


def groups(ids: list[list[int]], prefixes: list[int], budget: int) -> list[tuple[list[int], int]]:
    sequences = Sequences.of(pa.array(ids, pa.list_(pa.int32())))
    found = group_by_prefix(sequences, np.array(prefixes, np.int32), budget)
    return [(group.members.tolist(), group.prefix) for group in found]


def test_candidates_of_a_query_that_fill_a_batch_are_grouped_wherever_they_stand() -> None:
    ids = [[1, 2, 9, 9], [3, 4, 9], [1, 2, 8, 8, 8], [1, 2, 7]]
    assert groups(ids, [2, 2, 2, 2], budget=6) == [([0, 2, 3], 2), ([1], 0)]


def test_too_few_tokens_are_batched_with_others() -> None:
    ids = [[1, 2, 9, 9], [3, 4, 9], [1, 2, 8, 8, 8], [1, 2, 7]]
    assert groups(ids, [2, 2, 2, 2], budget=7) == [([0, 1, 2, 3], 0)]


def test_equal_tokens_of_other_lengths_are_other_prefixes() -> None:
    assert groups([[1, 2, 9, 9], [1, 2, 9, 9]], [2, 3], budget=1) == [([0, 1], 0)]


def test_a_single_candidate_shares_nothing() -> None:
    assert groups([[1, 2, 9, 9]], [2], budget=1) == [([0], 0)]
    assert groups([], [], budget=1) == [([], 0)]
