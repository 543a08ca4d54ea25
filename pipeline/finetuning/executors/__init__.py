"""Where a model is trained: one module a place. All see the same rows in the same steps."""

from collections.abc import Callable
from typing import Protocol

from pipeline.finetuning.config import FinetuneConfig
from pipeline.finetuning.loop import Done
from pipeline.finetuning.progress import Line
from pipeline.finetuning.worker import Job
from pipeline.scoring.config import Dtype


class Executor(Protocol):
    """A module of this package."""

    def fastest_dtype(self, config: FinetuneConfig) -> Dtype:
        """What the scorer's `dtype: auto` is where the training runs. Raises as `connect` does."""

    def connect(self, job: Job) -> None:
        """Make ready, before anything is written. Raises ConfigError where there is no room."""

    def work(self, job: Job, tell: Callable[[Line], None]) -> Done:
        """Train from the last checkpoint to the end. tell: gets each line of the metrics once.

        Raises RayrankError for what a user can mend.
        """
