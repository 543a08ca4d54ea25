"""Where tasks run: one module a place, which `RetrieveConfig.executor` names. All write the same bytes."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from pipeline.retrieval.plan import Job
from pipeline.scoring.config import Dtype, ScorerConfig
from pipeline.tables.output.tasks import Task, TaskReport


class Executor(Protocol):
    """A module of this package."""

    def connect(self, job: Job) -> None:
        """Make ready. Raises ConfigError where there is no room."""

    def fastest_dtypes(self, job: Job, scorers: Sequence[ScorerConfig]) -> list[Dtype]:
        """What `dtype: auto` is where the actors run, for each scorer. Raises as `connect` does."""

    def work(self, job: Job, tasks: list[Task]) -> Iterator[TaskReport]:
        """What became of each task, as they are done; tasks of one step, in any order.

        Raises RayrankError for what a user can mend.
        """
