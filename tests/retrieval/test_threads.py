"""Dense search in threads, each of which compares whole shards."""

from threading import get_ident

import pytest
import torch

from pipeline.errors import InputError
from pipeline.retrieval.dense import in_threads


@pytest.mark.parametrize("threads", [1, 3, 9])
def test_shards_are_compared_in_threads_of_their_own(threads: int) -> None:
    before = torch.get_num_threads()
    names = [str(number) for number in range(20)]
    try:
        torch.set_num_threads(threads)
        found = list(in_threads(lambda name: (name, torch.get_num_threads(), get_ident()), names))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert [name for name, _, _ in found] == names
    assert {each for _, each, _ in found} == {1}
    assert get_ident() not in {thread for _, _, thread in found}


def test_an_error_of_a_thread_ends_the_search() -> None:
    begun = []

    def work(name: str) -> None:
        begun.append(name)
        if name == "1":
            raise InputError("damaged")

    before = torch.get_num_threads()
    with pytest.raises(InputError, match="damaged"):
        list(in_threads(work, [str(number) for number in range(3)]))
    assert "1" in begun
    assert torch.get_num_threads() == before
