import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.batching import Sequences, batch_size, cut, cut_without_padding


def sequences(*ids: list[int]) -> Sequences:
    return Sequences.of(pa.array(ids, pa.list_(pa.int32())))


@given(st.integers(0, 300), st.integers(1, 1000))
def test_a_batch_stays_within_the_budget_and_is_as_large_as_that_allows(longest: int, budget: int) -> None:
    count = batch_size(longest, budget)
    assert count == 1 or count * longest <= budget
    assert (count + 1) * max(1, longest) > budget


def test_the_longest_come_first_and_equals_keep_their_order() -> None:
    found = sequences([1], [1, 2, 3], [], [4, 5, 6], [7, 8])
    assert found.longest_first(np.arange(5)).tolist() == [1, 3, 4, 0, 2]
    assert found.longest_first(np.array([0, 2, 3])).tolist() == [3, 0, 2]


def test_pad_puts_ids_left_and_the_mask_over_them() -> None:
    ids, mask = sequences([1, 2, 3], [], [4]).pad(np.array([0, 2]), pad_id=9)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_pad_takes_a_slice_of_a_longer_array() -> None:
    array = pa.array([[7, 7], [1, 2, 3], [4]], pa.list_(pa.int32())).slice(1)
    ids, _ = Sequences.of(array).pad(np.array([1, 0]), pad_id=0)
    assert ids.tolist() == [[4, 0, 0], [1, 2, 3]]


def test_pad_gives_empty_sequences_a_hidden_position() -> None:
    ids, mask = sequences([], []).pad(np.array([0, 1]), pad_id=5)
    assert ids.tolist() == [[5], [5]]
    assert mask.tolist() == [[0], [0]]


def test_a_batch_can_be_longer_than_its_longest_sequence() -> None:
    ids, mask = sequences([1, 2], [3]).pad(np.array([0, 1]), pad_id=7, at_least=4)
    assert ids.tolist() == [[1, 2, 7, 7], [3, 7, 7, 7]]
    assert mask.tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]


def test_first_tokens_can_be_left_out() -> None:
    rest = sequences([1, 2, 3], [4, 5]).without_first(np.array([2, 0]))
    ids, _ = rest.pad(np.array([0, 1]), pad_id=0)
    assert ids.tolist() == [[3, 0], [4, 5]]


@given(
    st.lists(st.integers(0, 60), max_size=60), st.integers(0, 20), st.integers(1, 200), st.integers(1, 100)
)
def test_batches_are_cut_where_it_costs_least(
    lengths: list[int], prefix: int, max_batch_tokens: int, call_tokens: int
) -> None:
    """No worse than full batches, and than single ones; and none holds too much."""
    descending = np.array(sorted(lengths, reverse=True), np.int64)

    def cost(sizes: list[int]) -> int:
        firsts = np.cumsum([0, *sizes])[:-1]
        return sum(
            int(size * descending[first]) + call_tokens for size, first in zip(sizes, firsts, strict=True)
        )

    sizes = cut(descending, prefix, max_batch_tokens, call_tokens).tolist()
    assert sum(sizes) == len(lengths)
    full, left = [], descending
    while len(left):
        full.append(min(len(left), batch_size(prefix + int(left[0]), max_batch_tokens)))
        left = left[full[-1] :]
    assert cost(sizes) <= min(cost(full), cost([1] * len(lengths)))
    first = 0
    for size in sizes:
        assert size == 1 or size <= batch_size(prefix + int(descending[first]), max_batch_tokens)
        first += size


def test_a_batch_of_mixed_lengths_is_parted_where_that_saves_more_than_it_costs() -> None:
    lengths = np.array([100, 10, 10, 10], np.int64)
    assert cut(lengths, 0, 1000, 32).tolist() == [1, 3]
    assert cut(lengths, 0, 1000, 4096).tolist() == [4]


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [([], []), ([5], [1]), ([12], [1]), ([12, 11, 3], [1, 1, 1]), ([5, 5, 4, 4, 2, 1], [2, 3, 1])],
)
def test_without_padding_a_batch_holds_what_fits(lengths: list[int], sizes: list[int]) -> None:
    assert cut_without_padding(np.array(lengths, np.int64), 10).tolist() == sizes
