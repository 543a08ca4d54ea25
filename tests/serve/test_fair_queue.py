"""Which pairs go next."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serve.fair_queue import FairQueue


def lengths(*tokens: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.array(tokens, np.int64)


def drained(queue: FairQueue[str], max_tokens: int) -> list[tuple[str, list[int]]]:
    taken = []
    while chunks := queue.take(max_tokens):
        taken += [(chunk.request, chunk.pairs.tolist()) for chunk in chunks]
    return taken


def test_oldest_first_and_the_longest_of_each_request_first() -> None:
    queue: FairQueue[str] = FairQueue(1000)
    queue.add("a", lengths(10, 30, 20))
    queue.add("b", lengths(40))
    assert drained(queue, 50) == [("a", [1, 2]), ("a", [0]), ("b", [0])]


def test_a_batch_joins_requests_as_far_as_they_fit() -> None:
    queue: FairQueue[str] = FairQueue(1000)
    for name in "abc":
        queue.add(name, lengths(10, 10))
    assert [chunk.request for chunk in queue.take(40)] == ["a", "b"]
    queue.add("d", lengths(100))
    assert [chunk.request for chunk in queue.take(110)] == ["c"]
    assert [chunk.request for chunk in queue.take(110)] == ["d"]


def test_a_pair_that_is_larger_than_a_batch_goes_alone() -> None:
    queue: FairQueue[str] = FairQueue(1000)
    queue.add("a", lengths(500, 10))
    assert [chunk.pairs.tolist() for chunk in queue.take(100)] == [[0]]


def test_a_large_request_leaves_half_of_the_device_to_those_that_come_later() -> None:
    queue: FairQueue[str] = FairQueue(100)
    queue.add("large", np.full(1000, 10))
    served = {"large": 0, "small": 0}
    for number in range(60):
        queue.add(f"small{number}", lengths(*[10] * 10))
        for chunk in queue.take(100):
            served[chunk.request.rstrip("0123456789")] += len(chunk.pairs)
    assert 150 < served["large"] < 300


def test_a_small_request_is_not_behind_all_of_a_large_one() -> None:
    queue: FairQueue[str] = FairQueue(100)
    queue.add("large", np.full(1000, 10))
    queue.take(100)
    queue.take(100)
    queue.add("small", lengths(10))
    order = [request for request, _ in drained(queue, 100)]
    assert order.index("small") <= 2


def test_what_is_removed_is_not_taken_and_not_counted() -> None:
    queue: FairQueue[str] = FairQueue(100)
    queue.add("gone", lengths(10, 20))
    queue.add("stays", lengths(30))
    queue.remove("gone")
    queue.remove("never there")
    assert (queue.tokens, queue.tokens_ahead, len(queue)) == (30, 30, 1)
    assert drained(queue, 1000) == [("stays", [0])]
    assert (queue.tokens, queue.tokens_ahead, len(queue)) == (0, 0, 0)


def test_one_request_counts_as_one_chunk_for_those_that_come() -> None:
    queue: FairQueue[str] = FairQueue(100)
    queue.add("large", np.full(1000, 10))
    assert (queue.tokens, queue.tokens_ahead) == (10_000, 100)


@given(
    st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=20), min_size=1, max_size=10),
    st.integers(1, 200),
    st.integers(1, 200),
)
def test_every_pair_is_taken_once_and_batches_fit(
    requests: list[list[int]], chunk_tokens: int, max_tokens: int
) -> None:
    queue: FairQueue[int] = FairQueue(chunk_tokens)
    for number, tokens in enumerate(requests):
        queue.add(number, lengths(*tokens))
    assert queue.tokens == sum(map(sum, requests))
    seen: list[tuple[int, int]] = []
    while chunks := queue.take(max_tokens):
        pairs = [(chunk.request, int(pair)) for chunk in chunks for pair in chunk.pairs]
        assert len(pairs) == 1 or sum(requests[request][pair] for request, pair in pairs) <= max_tokens
        seen += pairs
    assert sorted(seen) == [(n, pair) for n, tokens in enumerate(requests) for pair in range(len(tokens))]
    assert (queue.tokens, queue.tokens_ahead, len(queue)) == (0, 0, 0)
