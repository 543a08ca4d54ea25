"""The process at hand, one shard after another: for a small table, a test, a debugger."""

from collections.abc import Iterator, Sequence

import torch

from pipeline.interruption import raise_interrupts
from pipeline.placement import ActorsConfig
from pipeline.reranking.cascade import Level
from pipeline.reranking.shard import Job, OpenShard
from pipeline.reranking.worker import Outcome, Worker
from pipeline.scoring.config import Dtype
from pipeline.scoring.dtype import fastest_dtype
from pipeline.tables.input.shards import Shard


def connect(_pools: Sequence[ActorsConfig], _shards: list[Shard]) -> int:
    raise_interrupts()
    return 1


def describe(_pools: Sequence[ActorsConfig]) -> str:
    return "none: in this process (executor: here)"


def fastest_dtypes(levels: Sequence[Level]) -> list[Dtype]:
    return [fastest_dtype(level.scorer.device) for level in levels]


def work(job: Job, shards: list[Shard]) -> Iterator[Outcome]:
    """A shard that kills the process is given up by the start after the third that it killed."""
    levels = []
    for level in job.config.cascade:
        _take_threads(level.actors)
        levels.append((level.actors, Worker(job, level.number)))
    for shard in shards:
        state: Shard | OpenShard | Outcome = shard
        for actors, worker in levels:
            if isinstance(state, Shard | OpenShard):
                _take_threads(actors)
                state = worker(state)
        assert not isinstance(state, Shard | OpenShard)
        yield state


def _take_threads(actors: ActorsConfig) -> None:
    """As many as Ray gives an actor, or sums would be made in another order."""
    torch.set_num_threads(max(1, int(actors.num_cpus)))
