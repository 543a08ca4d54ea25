"""Measure runs: `python -m pipeline.evaluate --run out/demo --qrels examples/qrels.txt`.

With --baseline (the first stage, say) each run is compared with it: a paired randomization test, corrected
by Holm for the number of tests, and a bootstrap interval of the change.

--trec FILE writes a job's run as a TREC file, for other tools; without --qrels it does that alone.

`--mteb T2Reranking CMedQAv1-reranking --config configs/rerank/bge-reranker-base.yaml` measures a job's scorer
on tasks of MTEB instead, in this process; they bring queries, candidates and judgments along.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from pipeline import command
from pipeline.command import Status
from pipeline.errors import ConfigError, OutputError, fields_under
from pipeline.evaluation.compare import page, passages_shown
from pipeline.evaluation.comparison import Evaluation, evaluate
from pipeline.evaluation.measures import DEFAULT_MEASURES
from pipeline.evaluation.printed import lines, per_query
from pipeline.evaluation.record import as_json
from pipeline.evaluation.runs import export_trec
from pipeline.evaluation.texts import is_job, read_texts
from pipeline.reranking.config import load_config
from pipeline.scoring import ScorerConfig
from pipeline.standard_streams import show

_STDOUT = Path("-")
_OF_RUNS = (
    "run",
    "qrels",
    "baseline",
    "measures",
    "common_queries",
    "judge_coverage",
    "per_query",
    "html",
    "texts",
    "trec",
)
_OF_MTEB = ("config", "overrides")


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser("evaluate", __doc__, config=False)
    _add_arguments_of_runs(parser)
    tasks = parser.add_argument_group("MTEB, in place of runs")
    tasks.add_argument(
        "--mteb",
        nargs="+",
        metavar="TASK",
        help="measure the scorer of --config on these reranking tasks of MTEB",
    )
    command.add_config(tasks, required=False)
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the numbers to this file as JSON; - prints them in place of the table",
    )
    options = parser.parse_args(arguments)
    _check(parser, options)
    return command.run(lambda: _evaluate(options) if options.mteb is None else _measure_tasks(options))


def _add_arguments_of_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run",
        action="extend",
        nargs="+",
        help="the output directory of a job, or a TREC run; several are measured side by side",
    )
    parser.add_argument("--qrels", help="judgments, a qrels file of TREC's form or BEIR's")
    parser.add_argument("--baseline", help="a run to compare with, such as the first stage's")
    parser.add_argument(
        "--measures",
        nargs="+",
        default=[DEFAULT_MEASURES],
        metavar="MEASURE",
        help=f"one or several, in ir_measures' names: nDCG@10 R@100; default: {DEFAULT_MEASURES}",
    )
    parser.add_argument(
        "--common-queries",
        action="store_true",
        help="measure only queries that all runs and the baseline have; else missing ones count as 0",
    )
    parser.add_argument(
        "--judge-coverage",
        action="store_true",
        help="tell how much of each run is judged; also measure it without its unjudged passages",
    )
    parser.add_argument("--per-query", type=Path, help="write every query's values to this TSV file")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page that shows which queries moved, and why"
    )
    parser.add_argument(
        "--trec",
        metavar="FILE",
        help="write the one --run, the output of a job, as a TREC run; needs no --qrels",
    )
    parser.add_argument(
        "--texts",
        metavar="TABLE",
        help="where --html finds the texts: OUTPUT/candidates/ of retrieve or prepare, or a job's YAML, for"
        " its input (--set run_date=... goes with it)",
    )


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Runs and MTEB's tasks are two kinds of work that share --json. Ends the command where they mix."""
    needed: tuple[str, ...]
    strangers: tuple[str, ...]
    if options.mteb is None:
        needed, strangers, why = ("run",), _OF_MTEB, "goes with --mteb alone"
        needed = needed if options.trec is not None else (*needed, "qrels")
        if options.texts is not None and is_job(options.texts):
            strangers = tuple(name for name in strangers if name != "overrides")  # they are that job's
    else:
        needed, strangers, why = ("config",), _OF_RUNS, "does not go with --mteb"
    for name in strangers:
        if getattr(options, name) != parser.get_default(name):
            flag = "set" if name == "overrides" else name.replace("_", "-")
            parser.error(f"argument --{flag}: {why}")
    lacking = [f"--{name}" for name in needed if getattr(options, name) is None]
    if lacking:
        parser.error(f"the following arguments are required: {', '.join(lacking)}")


def _evaluate(options: argparse.Namespace) -> Status:
    if options.texts is not None and options.html is None:
        raise ConfigError("--texts: only the page of --html shows texts; give --html, or leave it out")
    if options.trec is not None:
        if len(options.run) > 1:
            raise ConfigError("--trec: a TREC file holds one run; give one --run")
        export_trec(options.run[0], options.trec)
        if options.qrels is None:
            return Status.FINISHED
    found = evaluate(
        options.run,
        options.qrels,
        options.baseline,
        " ".join(options.measures),
        common_queries=options.common_queries,
        judge_coverage=options.judge_coverage,
    )
    if options.per_query is not None:
        _write(options.per_query, per_query(found))
    if options.json not in (None, _STDOUT):
        _write(options.json, [as_json(found, options.qrels)])
    if options.html is not None:
        _write(options.html, [_page(found, options)])
    show(as_json(found, options.qrels) if options.json == _STDOUT else "\n".join(lines(found)))
    return Status.FINISHED


def _measure_tasks(options: argparse.Namespace) -> Status:
    config = _scorer(options)
    with command.loading():  # torch: measuring runs does without, and a mistake in the config waits for none
        from pipeline.evaluation import mteb  # noqa: PLC0415  (torch comes with it)
        from pipeline.scoring import Scorer  # noqa: PLC0415  (torch comes with it)
        from pipeline.scoring.dtype import settled  # noqa: PLC0415  (torch comes with it)
    with fields_under("scorer"):
        scorer, found = Scorer(settled(config)).config, []  # as it is recorded, with its truncation
    for scores in mteb.measure(scorer, mteb.find_tasks(options.mteb)):
        found.append(scores)
        if options.json != _STDOUT:
            show(mteb.line(scores))
        if options.json not in (None, _STDOUT):  # after each: the next one may take hours
            _write(options.json, [mteb.as_json(scorer, found)])
    if options.json == _STDOUT:
        show(mteb.as_json(scorer, found))
    return Status.FINISHED


def _scorer(options: argparse.Namespace) -> ScorerConfig:
    """The job's only one, on the device that its actors hold."""
    config = load_config(options.config, options.overrides)
    if config.levels is not None:
        raise ConfigError(
            "levels: MTEB's tasks are scored by one scorer; give a config whose scorer is that of one level",
            field="levels",
        )
    if config.fuse is not None:
        raise ConfigError(
            "fuse: MTEB's tasks are ranked by the scorer alone; leave it out (--set fuse=null)", field="fuse"
        )
    return config.cascade[0].scorer


def _page(found: Evaluation, options: argparse.Namespace) -> str:
    if options.texts is None:
        return page(found, options.qrels, None)
    return page(found, options.qrels, read_texts(options.texts, passages_shown(found), options.overrides))


def _write(path: Path, parts: Iterable[str]) -> None:
    try:
        path.write_text("".join(parts), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
