"""A step's rows are dealt so that each is one worker's."""

import numpy as np
import torch

from pipeline.finetuning.peers import ALONE, Peers
from pipeline.finetuning.sampling import seed_of, steps

CPU = torch.device("cpu")


def test_each_row_of_a_step_is_dealt_to_one_worker() -> None:
    for world in (1, 2, 3, 5):
        for _, numbers in steps(10, 4, 0, 6, seed=1):
            dealt = [Peers(rank, world, CPU).deal(numbers) for rank in range(world)]
            assert sorted(map(int, np.concatenate(dealt))) == sorted(map(int, numbers))
            assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_who_is_alone_sums_nothing() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    ALONE.sum_gradients([parameter])
    assert parameter.grad is None
    assert (ALONE.total([1.5, 2]), ALONE.from_first(0.25)) == ([1.5, 2], 0.25)


def test_what_is_drawn_differs_by_seed_step_and_worker() -> None:
    drawn = {seed_of(seed, step, rank) for seed in range(3) for step in range(3) for rank in range(3)}
    assert len(drawn) == 27
    assert seed_of(1, 2, 0) == seed_of(1, 2, 0)
