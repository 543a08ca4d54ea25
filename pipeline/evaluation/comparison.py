"""How good runs are, and whether they are better than a baseline."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ir_measures import Measure, Qrel

from pipeline.errors import InputError
from pipeline.evaluation.measures import cutoff_of, parse_measures, values_of
from pipeline.evaluation.qrels import read_qrels
from pipeline.evaluation.significance import Interval, Values, holm, intervals, p_values
from pipeline.evaluation.systems import System, condensed, judged_share, read_systems
from pipeline.reporting.judged import BeforeAfter, Change

CONDENSED = "condensed "
_TOP, _LEAST_HIT = 10, 0.05
"""Where fewer queries have a judged passage in a run's top, the judgments may be another collection's."""


@dataclass(frozen=True)
class Measured:
    """One run's values, in the order of the evaluation's queries."""

    system: System
    values: dict[str, Values]
    """By measure; of the condensed list under `condensed MEASURE`."""
    intervals: dict[str, Interval | None]
    """By measure, 95 % of the mean; None of a single query."""
    missing: frozenset[str]
    """Measured queries that the run has no row of: their value is 0."""
    judged: dict[int | None, float]
    """By depth (None: all of it), the share of its passages that are judged. Empty where nobody asked."""


@dataclass(frozen=True)
class Comparison:
    """One measure of one run beside the baseline's."""

    run: str
    measure: str
    before: Values
    """A value a query."""
    after: Values
    interval: Interval | None
    """95 % of the mean change; None of a single query."""
    p_value: float
    p_holm: float
    """Corrected for all comparisons of the evaluation, over runs and measures."""

    @property
    def change(self) -> Values:
        return self.after - self.before

    @property
    def told(self) -> BeforeAfter:
        """Its numbers alone, for summaries and tables."""
        change = Change(
            mean=self.change.mean(),
            interval=self.interval,
            p=self.p_value,
            p_holm=self.p_holm,
            better=int((self.change > 0).sum()),
            same=int((self.change == 0).sum()),
            worse=int((self.change < 0).sum()),
        )
        return BeforeAfter(before=self.before.mean(), after=self.after.mean(), change=change)


@dataclass(frozen=True)
class Evaluation:
    """Some runs over the judged queries."""

    judgments: tuple[Qrel, ...]
    """Of the queries that are measured."""
    judged: int
    """Queries of the qrels, which may be more than those measured."""
    query_ids: tuple[str, ...]
    measures: tuple[str, ...]
    runs: tuple[Measured, ...]
    baseline: Measured | None
    comparisons: tuple[Comparison, ...]
    """For each run its measures; none without a baseline."""
    remarks: tuple[str, ...]
    """What the numbers don't tell by themselves, a line each."""

    @property
    def all_measured(self) -> tuple[Measured, ...]:
        return self.runs if self.baseline is None else (self.baseline, *self.runs)


def evaluate(
    runs: Sequence[str],
    qrels: str,
    baseline: str | None,
    measures: str,
    *,
    common_queries: bool = False,
    judge_coverage: bool = False,
) -> Evaluation:
    """Measure `runs`, and `baseline` beside them, over the queries that the qrels judge.

    A judged query that a run lacks counts as 0 (trec_eval -c); common_queries: leave out those that a run
    or the baseline lacks. judge_coverage: tell how much is judged, and measure condensed lists too. Paths are
    TREC files, or output directories of the job. Raises InputError for an unreadable file, ConfigError for a
    measure.
    """
    parsed = parse_measures(measures)
    judgments = read_qrels(qrels)
    systems, first = read_systems(runs, baseline)
    both = systems if first is None else [first, *systems]
    judged = {judgment.query_id for judgment in judgments}
    measured_ids = _measured_queries(both, judged, qrels, common_queries=common_queries)
    return compare(systems, first, judgments, measured_ids, parsed, judge_coverage=judge_coverage)


def compare(
    systems: Sequence[System],
    first: System | None,
    judgments: Sequence[Qrel],
    measured_ids: Collection[str],
    parsed: list[Measure],
    *,
    judge_coverage: bool = False,
) -> Evaluation:
    """Measure systems that were read, and `first` beside them, over the queries of `measured_ids`."""
    both = systems if first is None else [first, *systems]
    query_ids, judged = tuple(sorted(measured_ids)), {judgment.query_id for judgment in judgments}
    judgments = [judgment for judgment in judgments if judgment.query_id in measured_ids]
    measured = [
        _measure(system, parsed, judgments, query_ids, judge_coverage=judge_coverage) for system in both
    ]
    compared = [] if first is None else list(_comparisons(measured[0], measured[1:]))
    return Evaluation(
        judgments=tuple(judgments),
        judged=len(judged),
        query_ids=query_ids,
        measures=tuple(measured[0].values),
        runs=tuple(measured[len(both) - len(systems) :]),
        baseline=None if first is None else measured[0],
        comparisons=tuple(compared),
        remarks=tuple(_remarks(both, judgments, parsed)),
    )


def _measured_queries(
    systems: Sequence[System], judged: set[str], qrels: str, *, common_queries: bool
) -> set[str]:
    held = [judged & system.ranking.keys() for system in systems]
    for system, queries in zip(systems, held, strict=True):
        if not queries:
            raise InputError(f"{qrels}: judges none of the queries of {system.name}; are the ids the same?")
    measured = judged.intersection(*held) if common_queries else judged
    if not measured:
        names = " and ".join(system.name for system in systems)
        raise InputError(f"{qrels}: judges none of the queries that {names} all have")
    return measured


def _measure(
    system: System,
    measures: list[Measure],
    judgments: list[Qrel],
    query_ids: tuple[str, ...],
    *,
    judge_coverage: bool,
) -> Measured:
    found = values_of(measures, judgments, system.rows())
    judged = {}
    if judge_coverage:
        again = values_of(measures, judgments, condensed(system, judgments).rows())
        found |= {f"{CONDENSED}{measure}": values for measure, values in again.items()}
        judged = {depth: judged_share(system, judgments, depth) for depth in _depths(measures)}
    values = {
        measure: np.array([by_query.get(query_id, 0.0) for query_id in query_ids])
        for measure, by_query in found.items()
    }
    spans = intervals(np.column_stack(list(values.values())))
    missing = frozenset(set(query_ids) - system.ranking.keys())
    return Measured(system, values, dict(zip(values, spans, strict=True)), missing, judged)


def _depths(measures: list[Measure]) -> list[int | None]:
    """Which the measures look at; the whole of it last."""
    cutoffs = {cutoff_of(measure) for measure in measures}
    return sorted(cutoffs, key=lambda depth: (depth is None, depth or 0))


def _comparisons(before: Measured, runs: Sequence[Measured]) -> Iterator[Comparison]:
    tests = [(after, measure) for after in runs for measure in before.values]
    changes = np.column_stack([after.values[measure] - before.values[measure] for after, measure in tests])
    found = p_values(changes)
    results = zip(tests, intervals(changes), found, holm(found), strict=True)
    for (after, measure), interval, p_value, p_holm in results:
        yield Comparison(
            run=after.system.name,
            measure=measure,
            before=before.values[measure],
            after=after.values[measure],
            interval=interval,
            p_value=p_value,
            p_holm=p_holm,
        )


def _remarks(systems: Sequence[System], judgments: Sequence[Qrel], measures: list[Measure]) -> Iterator[str]:
    """A line each: whether next to nothing is judged, which runs were cut, which measures look deeper."""
    yield from _of_another_collection(systems, judgments)
    if cut := [system for system in systems if system.is_cut]:
        depth = cut[0].depth
        whose = next(system.name for system in systems if system.top_k == depth)
        verb = "is" if len(cut) == 1 else "are"
        yield f"{_listed(cut)} {verb} cut at {depth} passages a query, as deep as {whose}"
    deepest = max(system.depth for system in systems)
    shallow: dict[tuple[int, str], list[System]] = {}
    for system in systems:
        # A measure without a cutoff looks as deep as a run goes; that matters where another goes deeper.
        depths = [(measure, cutoff_of(measure) or deepest) for measure in measures]
        if deeper := [str(measure) for measure, depth in depths if depth > system.depth]:
            shallow.setdefault((system.depth, ", ".join(deeper)), []).append(system)
    for (depth, names), of_systems in shallow.items():
        held = f"{'has' if len(of_systems) == 1 else 'have'} at most {depth} passages a query"
        unlike = f"; another one has {deepest}" if depth < deepest else ""
        yield f"{_listed(of_systems)} {held}: {names} would look deeper{unlike}"


def _of_another_collection(systems: Sequence[System], judgments: Sequence[Qrel]) -> Iterator[str]:
    """A question where so few queries find a judged passage that equal ids may be chance."""
    judged = {(judgment.query_id, judgment.doc_id) for judgment in judgments}
    tops = [
        (query_id, {row.passage_id for row in rows[:_TOP]})
        for system in systems
        for query_id, rows in system.ranking.items()
    ]
    measured = {judgment.query_id for judgment in judgments}
    held = {query_id for query_id, _ in tops} & measured
    hit = {query_id for query_id, top in tops if any((query_id, each) in judged for each in top)}
    if len(hit) < _LEAST_HIT * len(held):
        yield (
            f"{len(hit)} of {len(held)} queries have a judged passage among the first {_TOP} of a run: are"
            " these the judgments of this collection?"
        )


def _listed(systems: list[System]) -> str:
    names = list(dict.fromkeys(system.name for system in systems))
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
