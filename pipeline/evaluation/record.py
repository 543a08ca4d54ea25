"""An evaluation for machines: what `--json` writes."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipeline.evaluation.comparison import Comparison, Evaluation, Measured
from pipeline.evaluation.significance import Interval
from pipeline.redaction import redacted


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class ChangeRecord(_Part):
    """A measure of a run beside the baseline's."""

    mean: float
    """Run less baseline."""
    interval: Interval | None
    """95 % of the mean change, by bootstrap over queries; null of a single query."""
    p: float
    """Of the two-sided paired randomization test."""
    p_holm: float
    """The same, corrected by Holm for all changes in this file."""
    better: int
    """Queries whose value rose."""
    same: int
    worse: int


class MeasureRecord(_Part):
    mean: float
    """Over `queries`; a query that the run lacks counts as 0."""
    interval: Interval | None
    """95 % of the mean, by bootstrap over queries; null of a single query."""
    change: ChangeRecord | None
    """Null of the baseline, and where there is none."""


class SystemRecord(_Part):
    run: str
    """As it was given, without secrets."""
    role: Literal["run", "baseline"]
    missing_queries: int
    """Measured queries that it has no row of."""
    judged: dict[str, float]
    """With --judge-coverage: by depth (`10`, ..., `all`) the share of its passages that is judged."""
    measures: dict[str, MeasureRecord]
    """By name; with --judge-coverage also `condensed NAME`, of the list without unjudged passages."""


class EvaluationRecord(_Part):
    """The whole file."""

    qrels: str
    judged_queries: int
    queries: int
    """Those that are measured: all judged ones, or with --common-queries those that all runs hold."""
    remarks: list[str]
    """What the numbers don't tell by themselves: runs that were cut, measures that look deeper than a run."""
    systems: list[SystemRecord]
    """The baseline first, where there is one, then the runs as they were given."""


def as_json(found: Evaluation, qrels: str) -> str:
    changes = {(row.run, row.measure): row for row in found.comparisons}
    record = EvaluationRecord(
        qrels=redacted(qrels),
        judged_queries=found.judged,
        queries=len(found.query_ids),
        remarks=list(found.remarks),
        systems=[
            _system(each, {} if each is found.baseline else changes, found) for each in found.all_measured
        ],
    )
    return f"{record.model_dump_json(indent=2)}\n"


def _system(
    measured: Measured, changes: dict[tuple[str, str], Comparison], found: Evaluation
) -> SystemRecord:
    name = measured.system.name
    return SystemRecord(
        run=name,
        role="baseline" if measured is found.baseline else "run",
        missing_queries=len(measured.missing),
        judged={str(depth or "all"): share for depth, share in measured.judged.items()},
        measures={
            measure: MeasureRecord(
                mean=values.mean(),
                interval=measured.intervals[measure],
                change=_change(changes.get((name, measure))),
            )
            for measure, values in measured.values.items()
        },
    )


def _change(row: Comparison | None) -> ChangeRecord | None:
    if row is None:
        return None
    return ChangeRecord(
        mean=row.change.mean(),
        interval=row.interval,
        p=row.p_value,
        p_holm=row.p_holm,
        better=int((row.change > 0).sum()),
        same=int((row.change == 0).sum()),
        worse=int((row.change < 0).sum()),
    )
