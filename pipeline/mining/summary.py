"""What a finished job of `mine` tells."""

from collections import Counter
from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict

from pipeline.job_summary import JobSummary, rejected_lines
from pipeline.mining import negatives
from pipeline.mining.shard import NAMED
from pipeline.tables.output.tasks import Result


class Counts(BaseModel):
    """Of all shards: queries = rows + all `left_out`."""

    model_config = ConfigDict(frozen=True)

    candidates: int
    """Of the run, that could be read."""
    queries: int
    rows: int
    """Training rows, a query each."""
    positives: int
    negatives: int
    short: int
    """Training rows with fewer negatives than were asked for."""
    refused: dict[str, int]
    """Why candidates were no negatives, the first reason of each: ranks, same_text, margin, ..."""
    left_out: dict[str, int]
    """Why queries have no training row."""
    named: dict[str, list[str]]
    """Some of those queries; OUTPUT/unmatched has all."""
    rejected: dict[str, int]
    """Rows of the run that could not be read."""

    @classmethod
    def of(cls, results: Iterable[Result]) -> "Counts":
        numbers: Counter[str] = Counter()
        tallies = {name: Counter[str]() for name in ("refused", "left_out", "rejected")}
        named: dict[str, list[str]] = {}
        for result in results:
            for name, tally in tallies.items():
                tally.update(result[name])
            for reason, ids in result["named"].items():
                named[reason] = [*named.get(reason, []), *ids][:NAMED]
            numbers.update({name: value for name, value in result.items() if isinstance(value, int)})
        counted = {name: numbers[name] for name, each in cls.model_fields.items() if each.annotation is int}
        told = {name: dict(sorted(tally.items())) for name, tally in tallies.items()}
        return cls.model_validate({**counted, **told, "named": named})


class Summary(Counts, JobSummary):
    output: str
    wall_s: float

    def lines(self) -> Iterator[str]:
        yield (
            f"{self.rows} training rows of {self.queries} queries, with {self.positives} positives and"
            f" {self.negatives} negatives, mined in {self.wall_s:.1f} s: {self.output}/training_rows"
        )
        if self.short:
            yield f"{self.short} rows have fewer negatives than negatives.number"
        if self.refused:
            told = ", ".join(f"{count} {reason}" for reason, count in self.refused.items())
            yield f"candidates refused as negatives: {told}"
        if self.left_out:
            yield f"{sum(self.left_out.values())} queries have no row, see {self.output}/unmatched:"
        for reason, count in self.left_out.items():
            named = ", ".join(self.named[reason]) + (", ..." if count > len(self.named[reason]) else "")
            yield f"  {count} {reason}: {negatives.REASONS[reason]} ({named})"
        yield from rejected_lines(self.output, self.rejected)
