"""The process at hand, one shard after another: for a small table, a test, a debugger."""

from collections.abc import Iterator

import torch

from pipeline.interruption import raise_on_sigterm
from pipeline.placement import ActorsConfig
from pipeline.reranking.shard import Job
from pipeline.reranking.worker import Outcome, Worker
from pipeline.tables.input.shards import Shard


def connect(actors: ActorsConfig, _shards: list[Shard]) -> int:
    raise_on_sigterm()
    # As many as Ray gives an actor, or sums would be made in another order.
    torch.set_num_threads(max(1, int(actors.num_cpus)))
    return 1


def describe(_actors: ActorsConfig) -> str:
    return "none: in this process (executor: here)"


def work(job: Job, shards: list[Shard]) -> Iterator[Outcome]:
    """A shard that kills the process is given up by the start after the third that it killed."""
    worker = Worker(job)
    return map(worker, shards)
