"""An evaluation as lines of text: for a terminal, and every query's values as TSV."""

from collections.abc import Iterable, Iterator

from pipeline.evaluation.comparison import Evaluation, Measured
from pipeline.reporting.judged import COMPARED, before_and_after, compared, span


def lines(found: Evaluation) -> Iterator[str]:
    """What of the queries was measured, what is to be known of it, and the table."""
    yield from _queries(found)
    yield from found.remarks
    yield from _coverage(found)
    if len(found.runs) > 1:
        yield from _side_by_side(found)
    elif found.baseline is None:
        yield from _alone(found.runs[0])
    else:
        yield from before_and_after({row.measure: row.told for row in found.comparisons})


def _queries(found: Evaluation) -> Iterator[str]:
    judged, total = found.judged, len(found.query_ids)
    roles = (
        [("run", found.runs[0])] if len(found.runs) == 1 else [(run.system.name, run) for run in found.runs]
    )
    if found.baseline is not None:
        roles.append(("baseline", found.baseline))
    if total < judged:
        holders = "the run holds" if len(roles) == 1 else "all of them hold"
        if [name for name, _ in roles] == ["run", "baseline"]:
            holders = "the run and baseline both hold"
        yield f"{total} of {judged} judged queries: those that {holders}"
        return
    yield f"{judged} judged queries"
    for name, measured in roles:
        if lost := len(measured.missing):
            where = f"the {name}" if name in ("run", "baseline") else name
            yield (f"{judged - lost} of {judged} judged queries are in {where}; the {lost} others count as 0")
    if lacking := frozenset[str]().union(*(measured.missing for _, measured in roles)):
        yield f"--common-queries measures only the {judged - len(lacking)} that all have"


def _coverage(found: Evaluation) -> Iterator[str]:
    for measured in found.all_measured:
        if measured.judged:
            shares = (
                f"{share:.1%} of {'all' if depth is None else f'the top {depth}'}"
                for depth, share in measured.judged.items()
            )
            yield f"{measured.system.name}: judged: {', '.join(shares)}"


def _alone(run: Measured) -> Iterator[str]:
    width = _width(run.values)
    yield f"{'':{width}} {'mean':>6}  {'95% interval':^16}".rstrip()
    for measure, values in run.values.items():
        yield f"{measure:{width}} {values.mean():.4f}  {span(run.intervals[measure], '.4f'):^16}".rstrip()


def _side_by_side(found: Evaluation) -> Iterator[str]:
    """A block a measure, a line a run."""
    names = [measured.system.name for measured in found.runs]
    first = [] if found.baseline is None else [f"{found.baseline.system.name} (baseline)"]
    width = max(map(len, [*names, *first])) + 2
    changes = {(row.run, row.measure): row.told.change for row in found.comparisons}
    for measure in found.measures:
        heads = f" {COMPARED}" if changes else f"  {'95% interval':^16}"
        yield f"{measure:{width}} {'mean':>7}{heads}".rstrip()
        if found.baseline is not None:
            yield f"  {first[0]:{width - 2}} {found.baseline.values[measure].mean():7.4f}"
        for run in found.runs:
            change = changes.get((run.system.name, measure))
            more = f" {compared(change)}" if change else f"  {span(run.intervals[measure], '.4f'):^16}"
            yield f"  {run.system.name:{width - 2}} {run.values[measure].mean():7.4f}{more}".rstrip()
    if found.baseline is None:
        yield "--baseline RUN adds a test of each change"


def _width(measures: Iterable[str]) -> int:
    return max(10, *map(len, measures))


def per_query(found: Evaluation) -> Iterator[str]:
    """A line a query, measure and run; `before` is empty without a baseline."""
    yield "query_id\tmeasure\tbefore\tafter\tmissing_in\trun\n"
    first = found.baseline
    for run in found.runs:
        for measure, values in run.values.items():
            for number, query_id in enumerate(found.query_ids):
                before = "" if first is None else f"{first.values[measure][number]:.6f}"
                roles = {"baseline": first, "run": run}
                missing_in = " ".join(
                    role for role, measured in roles.items() if measured and query_id in measured.missing
                )
                yield (
                    f"{query_id}\t{measure}\t{before}\t{values[number]:.6f}\t{missing_in}"
                    f"\t{run.system.name}\n"
                )
