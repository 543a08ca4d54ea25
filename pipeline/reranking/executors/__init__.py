"""Where shards are worked: one module a place, which `RerankConfig.executor` names.

What becomes of a shard is the same in each of them, to the byte.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from pipeline.placement import ActorsConfig
from pipeline.reranking.cascade import Level
from pipeline.reranking.shard import Job
from pipeline.reranking.worker import Outcome
from pipeline.scoring.config import Dtype
from pipeline.tables.input.shards import Shard


class Executor(Protocol):
    """A module of this package."""

    def connect(self, pools: Sequence[ActorsConfig], shards: list[Shard]) -> int:
        """Make ready, before anything is written: how many shards will be scored at once, at most.

        pools: a level's actors each. Raises ConfigError where there is no room for them.
        """

    def describe(self, pools: Sequence[ActorsConfig]) -> str:
        """Where the work would be done, and whether the actors fit there: a line of the dry run."""

    def fastest_dtypes(self, levels: Sequence[Level]) -> list[Dtype]:
        """What `dtype: auto` is where each level's actors run. Raises RayrankError as `connect` does."""

    def work(self, job: Job, shards: list[Shard]) -> Iterator[Outcome]:
        """What became of each shard, as they are done. Raises RayrankError for what a user can mend."""
