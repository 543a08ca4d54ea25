import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.batching import length_sorted_batches, pad

lengths_of_sequences = st.lists(st.integers(0, 300), max_size=60).map(lambda items: np.array(items, np.int32))


@given(lengths_of_sequences, st.integers(1, 1000))
def test_batches_hold_every_sequence_once_within_the_budget(lengths: np.ndarray, budget: int) -> None:
    batches = list(length_sorted_batches(lengths, budget))
    indices = [int(index) for batch in batches for index in batch]
    assert sorted(indices) == list(range(len(lengths)))
    assert all(len(batch) * max(1, lengths[batch].max()) <= budget for batch in batches if len(batch) > 1)


@given(lengths_of_sequences, st.integers(1, 1000))
def test_the_longest_come_first_and_equals_keep_their_order(lengths: np.ndarray, budget: int) -> None:
    order = [int(index) for batch in length_sorted_batches(lengths, budget) for index in batch]
    assert order == sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))


def test_pad_puts_ids_left_and_the_mask_over_them() -> None:
    sequences = pa.array([[1, 2, 3], [], [4]], pa.list_(pa.int32()))
    ids, mask = pad(sequences, np.array([0, 2]), pad_id=9)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_pad_takes_a_slice_of_a_longer_array() -> None:
    sequences = pa.array([[7, 7], [1, 2, 3], [4]], pa.list_(pa.int32())).slice(1)
    ids, _ = pad(sequences, np.array([1, 0]), pad_id=0)
    assert ids.tolist() == [[4, 0, 0], [1, 2, 3]]


def test_pad_gives_empty_sequences_a_hidden_position() -> None:
    ids, mask = pad(pa.array([[], []], pa.list_(pa.int32())), np.array([0, 1]), pad_id=5)
    assert ids.tolist() == [[5], [5]]
    assert mask.sum() == 0
