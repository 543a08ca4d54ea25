"""The workers of one training, as each of them sees it: its share of a step, and sums over all of them.

A step's loss is a mean over groups, so each worker weights what it has by the groups of the whole step, and
the sum is what one process would have. Gradients are summed once a step, after accumulation.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed

_BUCKET_NUMBERS = 16 * 2**20
"""Gradients that are summed at once: 64 MiB."""


@dataclass(frozen=True)
class Peers:
    """Worker `rank` of `world`. More than one need a process group of torch.distributed, on `device`."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """The one that writes and measures."""
        return self.rank == 0

    def deal(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The rows of a step that are this worker's; may be none."""
        return numbers[self.rank :: self.world]

    def total(self, values: Sequence[float]) -> list[float]:
        """The sums over all workers, of a value each."""
        if self.world == 1:
            return [*values]
        numbers = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(numbers)
        totals: list[float] = numbers.tolist()
        return totals

    def from_first(self, value: float) -> float:
        """What the first worker has; the others' own values are not read. They wait for it."""
        return self.total([value if self.is_first else 0.0])[0]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Put the sum over all workers in place of each gradient; one that no worker has stays None."""
        if self.world == 1:
            return
        each = [*parameters]
        having = self.total([float(parameter.grad is not None) for parameter in each])
        for bucket in _buckets(parameter for parameter, count in zip(each, having, strict=True) if count):
            flat = torch.cat([_gradient(parameter).flatten() for parameter in bucket])
            distributed.all_reduce(flat)
            parts = torch.split(flat, [parameter.numel() for parameter in bucket])
            for parameter, part in zip(bucket, parts, strict=True):
                parameter.grad = part.view_as(parameter)


ALONE = Peers(rank=0, world=1, device=torch.device("cpu"))
"""One process, which has nobody to sum with: its device is not read."""


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Zeros for a worker that had no group."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _buckets(parameters: Iterable[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    bucket: list[torch.nn.Parameter] = []
    for parameter in parameters:
        bucket.append(parameter)
        if sum(one.numel() for one in bucket) >= _BUCKET_NUMBERS:
            yield bucket
            bucket = []
    if bucket:
        yield bucket
