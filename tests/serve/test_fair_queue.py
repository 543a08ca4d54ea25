"""Which pairs go next."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serve.fair_queue import FairQueue


class Queue(FairQueue[str]):
    """Of requests whose pairs are `tokens` long, and equal where their keys are."""

    def wait(self, request: str, *tokens: int, keys: str | None = None) -> None:
        """keys: one letter a pair; None: pairs that no other equals."""
        names = [f"{request} {pair}" for pair in range(len(tokens))] if keys is None else list(keys)
        self.add(request, np.array(tokens, np.int64), [name.encode() for name in names])


def drained(queue: Queue, max_tokens: int) -> list[tuple[str, list[int]]]:
    taken = []
    while chunks := queue.take(max_tokens):
        taken += [(chunk.request, chunk.pairs.tolist()) for chunk in chunks]
    return taken


def test_oldest_first_and_the_longest_of_each_request_first() -> None:
    queue = Queue(1000)
    queue.wait("a", 10, 30, 20)
    queue.wait("b", 40)
    assert drained(queue, 50) == [("a", [1, 2]), ("a", [0]), ("b", [0])]


def test_a_batch_joins_requests_as_far_as_they_fit() -> None:
    queue = Queue(1000)
    for name in "abc":
        queue.wait(name, 10, 10)
    assert [chunk.request for chunk in queue.take(40)] == ["a", "b"]
    queue.wait("d", 100)
    assert [chunk.request for chunk in queue.take(110)] == ["c"]
    assert [chunk.request for chunk in queue.take(110)] == ["d"]


def test_a_pair_that_is_larger_than_a_batch_goes_alone() -> None:
    queue = Queue(1000)
    queue.wait("a", 500, 10)
    assert [chunk.pairs.tolist() for chunk in queue.take(100)] == [[0]]


def test_a_large_request_leaves_half_of_the_device_to_those_that_come_later() -> None:
    queue = Queue(100)
    queue.wait("large", *[10] * 1000)
    served = {"large": 0, "small": 0}
    for number in range(60):
        queue.wait(f"small{number}", *[10] * 10)
        for chunk in queue.take(100):
            served[chunk.request.rstrip("0123456789")] += len(chunk.pairs)
    assert 150 < served["large"] < 300


def test_a_small_request_is_not_behind_all_of_a_large_one() -> None:
    queue = Queue(100)
    queue.wait("large", *[10] * 1000)
    queue.take(100)
    queue.take(100)
    queue.wait("small", 10)
    order = [request for request, _ in drained(queue, 100)]
    assert order.index("small") <= 2


def test_what_is_removed_is_not_taken_and_not_counted() -> None:
    queue = Queue(100)
    queue.wait("gone", 10, 20)
    queue.wait("stays", 30)
    queue.remove("gone")
    queue.remove("never there")
    assert (queue.tokens.total, queue.tokens.ahead, len(queue)) == (30, 30, 1)
    assert drained(queue, 1000) == [("stays", [0])]
    assert (queue.tokens.total, queue.tokens.ahead, len(queue)) == (0, 0, 0)


def test_one_request_counts_as_one_chunk_for_those_that_come() -> None:
    queue = Queue(100)
    queue.wait("large", *[10] * 1000)
    assert (queue.tokens.total, queue.tokens.ahead) == (10_000, 100)


def test_equal_pairs_go_together_and_count_once() -> None:
    queue = Queue(100)
    queue.wait("large", *[50] * 4, keys="abcd")
    queue.wait("other", 60)
    queue.wait("small", 50, 40, keys="dx")
    queue.wait("same", 50, 50, keys="ad")
    assert (queue.tokens.total, queue.tokens.ahead) == (300, 100 + 60 + 40)
    assert [(chunk.request, chunk.pairs.tolist()) for chunk in queue.take(100)] == [
        ("large", [0, 1]),
        ("same", [0]),
    ]
    assert (queue.tokens.total, queue.tokens.ahead) == (200, 100 + 60 + 40)
    # d goes with the small request, which is before the large one's second chunk.
    assert drained(queue, 110) == [
        ("other", [0]),
        ("large", [3]),
        ("small", [0]),
        ("same", [1]),
        ("small", [1]),
        ("large", [2]),
    ]
    assert (queue.tokens.total, queue.tokens.ahead, len(queue)) == (0, 0, 0)


def test_a_pair_that_was_counted_with_a_request_that_leaves_counts_with_the_next() -> None:
    queue = Queue(100)
    for request in "abc":
        queue.wait(request, 30, 20, keys=f"={request}")
    assert (queue.tokens.total, queue.tokens.ahead) == (90, 90)
    queue.remove("a")
    assert (queue.tokens.total, queue.tokens.ahead) == (70, 70)
    queue.remove("c")
    assert (queue.tokens.total, queue.tokens.ahead) == (50, 50)
    assert drained(queue, 100) == [("b", [0, 1])]


@given(
    st.lists(
        st.dictionaries(st.integers(0, 25), st.none(), min_size=1, max_size=20), min_size=1, max_size=10
    ),
    st.integers(1, 200),
    st.integers(1, 200),
    st.sets(st.integers(0, 9)),
)
def test_every_pair_is_taken_once_and_batches_fit(
    requests: list[dict[int, None]], chunk_tokens: int, max_tokens: int, leave: set[int]
) -> None:
    """A pair is a number, and twice as many tokens long."""
    queue = Queue(chunk_tokens)
    waiting = {str(number): list(pairs) for number, pairs in enumerate(requests)}
    for request, pairs in waiting.items():
        queue.wait(request, *(2 * pair for pair in pairs), keys="".join(chr(97 + pair) for pair in pairs))
    for number in leave:
        queue.remove(str(number))
        waiting.pop(str(number), None)
    left = {pair for pairs in waiting.values() for pair in pairs}
    assert queue.tokens.total == 2 * sum(left)
    seen: list[tuple[str, int]] = []
    while chunks := queue.take(max_tokens):
        batch = [(chunk.request, waiting[chunk.request][pair]) for chunk in chunks for pair in chunk.pairs]
        distinct = {pair for _, pair in batch}
        assert len(distinct) == 1 or 2 * sum(distinct) <= max_tokens
        assert distinct <= left
        left -= distinct
        assert queue.tokens.total == 2 * sum(left)
        seen += batch
    assert sorted(seen) == sorted((request, pair) for request, pairs in waiting.items() for pair in pairs)
    assert (queue.tokens.total, queue.tokens.ahead, len(queue)) == (0, 0, 0)
