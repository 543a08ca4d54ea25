"""Where shards are mined: one module a place, which `MineConfig.executor` names. All write the same bytes."""

from collections.abc import Iterator
from typing import Protocol

from pipeline.mining.shard import Job
from pipeline.tables.output.tasks import Task, TaskReport


class Executor(Protocol):
    """A module of this package."""

    def connect(self, job: Job) -> None:
        """Make ready."""

    def work(self, job: Job, tasks: list[Task]) -> Iterator[TaskReport]:
        """What became of each shard, as they are done. Raises RayrankError for what a user can mend."""
