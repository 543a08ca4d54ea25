"""How good a run is beside what it was before, as values: summary, report and `evaluate` tell the same."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol

from pydantic import BaseModel, ConfigDict

Interval = tuple[float, float]
Rankings = Mapping[str, Sequence[str]]
"""By query id, the ids of its passages, best first."""

COMPARED = f"{'change':>8}  {'95% interval':^18}  {'p':>6}  {'p (Holm)':>8}   better/same/worse"
"""The head of what `compared` gives."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Change(_Part):
    """A measure of a run beside the baseline's."""

    mean: float
    """Run less baseline."""
    interval: Interval | None
    """95 % of the mean change, by bootstrap over queries; null of a single query."""
    p: float
    """Of the two-sided paired randomization test."""
    p_holm: float
    """The same, corrected by Holm for all changes that are told together."""
    better: int
    """Queries whose value rose."""
    same: int
    worse: int


class BeforeAfter(_Part):
    """One measure, the mean over the measured queries."""

    before: float
    after: float
    change: Change


class Judged(_Part):
    """How good a job's run is, beside the order in which its candidates came."""

    qrels: str
    """Where the judgments lie, without secrets."""
    identity: str
    """Of that file."""
    queries: int
    """Queries that it judges."""
    measured_queries: int
    """Those that the run has, over which the means are, before and after."""
    lost_queries: int
    """Those that the table has and the run lacks: none of their candidates was scored. What is neither
    measured nor lost is not in the table."""
    remarks: tuple[str, ...]
    """What the numbers don't tell by themselves: what was cut, measures that look deeper than the run."""
    measures: dict[str, BeforeAfter]
    """By name; {} where no query is measured."""

    def lines(self) -> Iterator[str]:
        yield from self.queries_told()
        yield from self.remarks
        if self.measures:
            yield from before_and_after(self.measures)
            yield from self.notes()

    def queries_told(self) -> Iterator[str]:
        """Which queries the numbers are of, and why others are missing."""
        if self.measured_queries == self.queries:
            yield f"{self.queries} queries are judged by {self.qrels}"
            return
        yield (
            f"{self.measured_queries} of the {self.queries} queries that {self.qrels} judges are in the run;"
            " the measures are theirs"
        )
        if self.lost_queries:
            yield (
                f"{self.lost_queries} are in the input, but none of their candidates was scored (see rejects"
                " and the shards that were given up)"
            )
        if absent := self.queries - self.measured_queries - self.lost_queries:
            yield f"{absent} are not in the input"

    def notes(self) -> Iterator[str]:
        """What stands below the numbers: what they are beside, and with the queries that the job lost."""
        yield (
            "Before is the order of the input (of a table by pipeline.retrieve: the fused ranking)."
            " pipeline.evaluate orders equal scores of a TREC run as trec_eval does, so its numbers may"
            " differ a little"
        )
        if self.lost_queries:  # queries that the input lacks are no fault of the job
            queries = self.measured_queries + self.lost_queries
            share = self.measured_queries / queries
            means = (
                f"{name} {each.before * share:.4f} -> {each.after * share:.4f}"
                for name, each in self.measures.items()
            )
            yield f"With the {self.lost_queries} lost queries as 0, over {queries}: {', '.join(means)}"


class Judge(Protocol):
    """Judgments that were read, and how a run is measured by them."""

    @property
    def qrels(self) -> str:
        """Where they lie, without secrets."""

    @property
    def identity(self) -> str:
        """Of that file."""

    @property
    def queries(self) -> frozenset[str]:
        """The ids of the judged queries."""

    def measure(
        self, before: Rankings, after: Rankings, in_the_table: Collection[str], depth: int | None
    ) -> Judged:
        """in_the_table: the judged queries that the input has; depth: of each query how many passages are in
        the run; None: all.
        """


ReadJudge = Callable[[str], Judge]
"""From the URL of a qrels file. Raises InputError where it can't be read."""


def before_and_after(measures: Mapping[str, BeforeAfter]) -> Iterator[str]:
    """A table for a terminal, a line a measure."""
    width = max(10, *map(len, measures))
    yield f"{'':{width}} {'before':>7} {'after':>7} {COMPARED}"
    for name, each in measures.items():
        yield f"{name:{width}} {each.before:7.4f} {each.after:7.4f} {compared(each.change)}"


def compared(change: Change) -> str:
    """One line's columns, under COMPARED."""
    return (
        f"{change.mean:+8.4f}  {span(change.interval, '+.4f'):^18}  {change.p:6.4f}  {change.p_holm:8.4f}"
        f"   {change.better}/{change.same}/{change.worse}"
    )


def span(interval: Interval | None, form: str) -> str:
    """An interval in words; nothing where there is none. form: of its ends, as in `+.4f`."""
    return "" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"
