"""An evaluation for machines: what `--json` writes."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipeline.evaluation.comparison import Comparison, Evaluation, Measured
from pipeline.evaluation.significance import Interval
from pipeline.redaction import redacted
from pipeline.reporting.judged import Change


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class MeasureRecord(_Part):
    mean: float
    """Over `queries`; a query that the run lacks counts as 0."""
    interval: Interval | None
    """95 % of the mean, by bootstrap over queries; null of a single query."""
    change: Change | None
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
                change=row.told.change if (row := changes.get((name, measure))) else None,
            )
            for measure, values in measured.values.items()
        },
    )
