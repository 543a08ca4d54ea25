"""Where the preparation's tasks run: one module a place, which `PrepareConfig.executor` names."""

from collections.abc import Iterator
from typing import Protocol

from pipeline.preparation.plan import Preparation
from pipeline.preparation.tasks import PartReport


class Executor(Protocol):
    """A module of this package."""

    def connect(self, preparation: Preparation) -> None:
        """Make ready. Raises ConfigError where the tables have no room."""

    def work(self, output: str, preparation: Preparation) -> Iterator[PartReport]:
        """What became of each part, as it is written. Raises RayrankError for what a user can mend."""
