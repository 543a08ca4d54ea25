"""Measure runs: `python -m pipeline.evaluate --run out/demo --qrels examples/qrels.txt`.

With --baseline (the first stage, say) each run is compared with it: a paired randomization test, corrected
by Holm for the number of tests, and a bootstrap interval of the change.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from pipeline import command
from pipeline.command import Status
from pipeline.errors import ConfigError, OutputError
from pipeline.evaluation.compare import page, passages_shown
from pipeline.evaluation.comparison import Evaluation, evaluate
from pipeline.evaluation.measures import DEFAULT_MEASURES
from pipeline.evaluation.printed import lines, per_query
from pipeline.evaluation.record import as_json
from pipeline.evaluation.texts import read_texts

_STDOUT = Path("-")


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser("evaluate", __doc__, config=False)
    parser.add_argument(
        "--run",
        required=True,
        action="append",
        help="the job's output directory, or a TREC run; more than one are measured side by side",
    )
    parser.add_argument("--qrels", required=True, help="judgments, a qrels file of TREC's form or BEIR's")
    parser.add_argument("--baseline", help="a run to compare with, such as the first stage's")
    parser.add_argument(
        "--measures", default=DEFAULT_MEASURES, help=f"in ir_measures' names; default: {DEFAULT_MEASURES}"
    )
    parser.add_argument(
        "--common-queries",
        action="store_true",
        help="leave out the judged queries that a run or the baseline lacks, which else count as 0",
    )
    parser.add_argument(
        "--judge-coverage",
        action="store_true",
        help="tell how much of each run is judged, and measure it without its unjudged passages too",
    )
    parser.add_argument("--per-query", type=Path, help="write every query's values to this TSV file")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the numbers to this file; - prints them alone"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page that shows which queries moved, and why"
    )
    parser.add_argument(
        "--texts",
        metavar="TABLE",
        help="whose texts --html shows: a candidate table in Parquet, or a job's YAML, whose input is one",
    )
    options = parser.parse_args(arguments)
    return command.run(lambda: _evaluate(options))


def _evaluate(options: argparse.Namespace) -> Status:
    if options.texts is not None and options.html is None:
        raise ConfigError("--texts: is shown by the page alone; give --html, or leave it out")
    found = evaluate(
        options.run,
        options.qrels,
        options.baseline,
        options.measures,
        common_queries=options.common_queries,
        judge_coverage=options.judge_coverage,
    )
    if options.per_query is not None:
        _write(options.per_query, per_query(found))
    if options.json not in (None, _STDOUT):
        _write(options.json, [as_json(found, options.qrels)])
    if options.html is not None:
        _write(options.html, [_page(found, options)])
    print(as_json(found, options.qrels) if options.json == _STDOUT else "\n".join(lines(found)))
    return Status.FINISHED


def _page(found: Evaluation, options: argparse.Namespace) -> str:
    if options.texts is None:
        return page(found, options.qrels, None)
    return page(found, options.qrels, read_texts(options.texts, passages_shown(found)))


def _write(path: Path, parts: Iterable[str]) -> None:
    try:
        path.write_text("".join(parts), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
