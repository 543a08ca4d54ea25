"""What the summaries of all commands that write an output say alike."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from pipeline.tables.schema import REASONS


class JobSummary(BaseModel):
    """Of a job that has ended; each command adds its own counts, and tells them in `lines`."""

    model_config = ConfigDict(frozen=True)

    NOTHING_NEW: ClassVar[str] = "nothing was done now"
    """What a start says that finds the job finished."""
    finished_before: str | None = Field(default=None, exclude=True)
    """When an earlier start finished all, so that this one had nothing to do. Not in summary.json."""

    def as_text(self) -> str:
        """For people."""
        before = f"Finished before, at {self.finished_before}; {self.NOTHING_NEW}."
        return "\n".join([*([before] if self.finished_before is not None else []), *self.lines()])

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """What the command tells of its own counts."""


def rejected_lines(output: str, rejected: Mapping[str, int]) -> Iterator[str]:
    """How many rows could not be used, for which reason each; nothing of none."""
    if rejected:
        total = sum(rejected.values())
        yield f"{total} {'row' if total == 1 else 'rows'} rejected, see {output}/rejects:"
        yield from (f"  {count} {reason}: {REASONS[reason]}" for reason, count in rejected.items())
