"""Measure a run: `python -m pipeline.evaluate --run out/demo --qrels examples/qrels.txt`.

With --baseline (the first stage, say) both are shown, with the p-value of a paired randomization test.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline import command
from pipeline.command import Status
from pipeline.errors import OutputError
from pipeline.evaluation.measures import DEFAULT_MEASURES, Comparison, evaluate


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser("evaluate", __doc__, config=False)
    parser.add_argument("--run", required=True, help="the job's output directory, or a TREC run")
    parser.add_argument("--qrels", required=True, help="judgments, a qrels file of TREC's form or BEIR's")
    parser.add_argument("--baseline", help="a run to compare with, such as the first stage's")
    parser.add_argument(
        "--measures", default=DEFAULT_MEASURES, help=f"in ir_measures' names; default: {DEFAULT_MEASURES}"
    )
    parser.add_argument(
        "--common-queries",
        action="store_true",
        help="leave out the judged queries that the run or the baseline lacks, which else count as 0",
    )
    parser.add_argument("--per-query", type=Path, help="write every query's values to this TSV file")
    options = parser.parse_args(arguments)
    return command.run(lambda: _evaluate(options))


def _evaluate(options: argparse.Namespace) -> Status:
    comparisons = evaluate(
        options.run, options.qrels, options.baseline, options.measures, common_queries=options.common_queries
    )
    if options.per_query is not None:
        try:
            options.per_query.write_text("".join(_per_query(comparisons)), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{options.per_query}: can't be written: {error.strerror}") from error
    print("\n".join(_table(comparisons)))
    return Status.FINISHED


def _table(comparisons: list[Comparison]) -> Iterator[str]:
    yield from _queries(comparisons[0])
    if comparisons[0].before is None:
        for row in comparisons:
            yield f"{row.measure:10} {row.after.mean():.4f}"
        return
    yield f"{'':10} {'before':>7} {'after':>7} {'change':>8} {'p':>7}   better/same/worse"
    for row in comparisons:
        assert row.before is not None
        change = row.after - row.before
        yield (
            f"{row.measure:10} {row.before.mean():7.4f} {row.after.mean():7.4f} {change.mean():+8.4f}"
            f" {row.p_value:7.4f}   {(change > 0).sum()}/{(change == 0).sum()}/{(change < 0).sum()}"
        )


def _queries(measured: Comparison) -> Iterator[str]:
    """How many queries the numbers below are of, and what is missing of them."""
    judged, total = measured.judged, len(measured.query_ids)
    if total < judged:
        both = "run" if measured.before is None else "run and baseline both"
        yield f"{total} of {judged} judged queries: those that the {both} hold{'s' if both == 'run' else ''}"
        return
    yield f"{judged} judged queries"
    for name, missing in (("run", measured.missing), ("baseline", measured.missing_before)):
        if missing:
            yield (
                f"{judged - len(missing)} of {judged} judged queries are in the {name};"
                f" the {len(missing)} others count as 0"
            )
    if lacking := measured.missing | measured.missing_before:
        yield f"--common-queries measures the other {judged - len(lacking)} alone"


def _per_query(comparisons: list[Comparison]) -> Iterator[str]:
    yield "query_id\tmeasure\tbefore\tafter\tmissing_in\n"
    for row in comparisons:
        before = np.full(len(row.after), np.nan) if row.before is None else row.before
        runs = {"baseline": row.missing_before, "run": row.missing}
        for query_id, old, new in zip(row.query_ids, before, row.after, strict=True):
            missing_in = " ".join(name for name, missing in runs.items() if query_id in missing)
            value = "" if np.isnan(old) else f"{old:.6f}"
            yield f"{query_id}\t{row.measure}\t{value}\t{new:.6f}\t{missing_in}\n"


if __name__ == "__main__":
    sys.exit(main())
