"""Runs to measure: a job's output, or a TREC file."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pipeline.errors import InputError, OutputError
from pipeline.job_record import JobRecord, read_record
from pipeline.output import is_complete, open_directory
from pipeline.ranking import trec_eval_order
from pipeline.tables.input.limits import DEFAULT_LIMITS
from pipeline.tables.input.links import located, not_there
from pipeline.tables.input.text_file import open_text
from pipeline.tables.input.text_lines import numbered_lines
from pipeline.tables.input.trec_lines import RUN_FORM, run_line
from pipeline.tables.output.damage import find_problems
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.markers import run_files, shard_names
from pipeline.tables.output.run import MENDED, TREC_RUN, id_text, read_run_file, write_trec_run
from pipeline.tables.storage import store_errors


class RunRow(NamedTuple):
    """One candidate of a run; ids as text."""

    query_id: str
    passage_id: str
    score: float
    """What orders the query's candidates: the negated rank in a job's run, which tells equal scores apart."""
    shown: float | None = None
    """The score that a job's run has; None where `score` is it."""


def read_whole_run(url: str) -> tuple[list[RunRow], int | None]:
    """The rows of a TREC run, or of a job's output directory, and the top_k at which the latter was cut.

    Raises InputError for what is neither, or for an output that is not finished; and with its line for a
    passage that stands twice for a query, which trec_eval refuses, and for a score of nan, which trec_eval
    would sort anywhere. An infinite score ranks first or last, as there.
    """
    if _is_directory(url):
        return _job_rows(Directory(url))
    return _each_once(_trec_rows(url)), None


def export_trec(url: str, target: str) -> None:
    """Write the run of a job's output as a TREC file, shard by shard. target: a path or a URL.

    Raises InputError for what is no finished run, OutputError where the file can't be written.
    """
    output = Directory(url)
    record = _finished_run(output)
    folder, _, name = target.rpartition("/")
    if not name:
        raise OutputError(f"{target}: is a folder; name the file to write")
    files = run_files(output, record.identity, shard_names(record.shards))
    write_trec_run(output, files, open_directory(folder or ".", []), name)


def by_query(rows: Iterable[RunRow]) -> dict[str, list[RunRow]]:
    """Each query's rows in trec_eval's order, best first."""
    rows, found = list(rows), dict[str, list[RunRow]]()
    order = trec_eval_order([row.passage_id for row in rows], [row.score for row in rows])
    for row in (rows[position] for position in order):
        found.setdefault(row.query_id, []).append(row)
    return found


def _is_directory(url: str) -> bool:
    fs, path = located(url)
    try:
        with store_errors(InputError, f"{url}: can't be read"):
            return bool(fs.info(path)["type"] == "directory")
    except (FileNotFoundError, NotADirectoryError) as error:
        lack = not_there(url, "no such folder or file")
        raise InputError(f"{lack}; a run is the output.path of a finished job, or a TREC run") from error


_Placed = tuple[str, RunRow]
"""Where a row stands, and the row."""


def _each_once(placed: Iterator[_Placed]) -> list[RunRow]:
    rows: list[RunRow] = []
    places: dict[tuple[str, str], str] = {}
    for place, row in placed:
        first = places.setdefault((row.query_id, row.passage_id), place)
        if first != place:
            raise InputError(
                f"{place}: passage {row.passage_id!r} of query {row.query_id!r} stands there a second time,"
                f" after {first}; a run has each passage once per query"
            )
        rows.append(row)
    return rows


def _trec_rows(url: str) -> Iterator[_Placed]:
    with open_text(url, DEFAULT_LIMITS) as text:
        for _, number, line in numbered_lines(text, 0, None, 1):
            candidate, place = run_line(line), f"{url} line {number}"
            if candidate is None:
                raise InputError(f"{place}: not `{RUN_FORM}`, with a number for the score")
            row = RunRow(candidate.query_id, candidate.passage_id, candidate.score)
            if math.isnan(row.score):
                raise InputError(
                    f"{place}: passage {row.passage_id!r} of query {row.query_id!r} has a score of nan,"
                    " which has no rank; remove the line, or give it a number"
                )
            yield place, row


def _job_rows(output: Directory) -> tuple[list[RunRow], int | None]:
    record = _finished_run(output)
    return _each_once(_ranked_rows(output, record)), _depth(record)


def _finished_run(output: Directory) -> JobRecord:
    record = read_record(output)
    if record is not None and record.command != "rerank":
        raise InputError(
            f"{output.url}: is an output of {record.command}, not a run{_way_out(output, record)}"
        )
    if record is None or not is_complete(output):
        raise InputError(f"{output.url}: no finished run (no _SUCCESS in it)")
    for problem in find_problems(output):
        raise InputError(f"{output.url}/{problem}; {'remove it' if problem.strange else MENDED}")
    return record


def _way_out(output: Directory, record: JobRecord) -> str:
    """How to measure the output of another command."""
    if TREC_RUN in output.names():
        return f"; its run is {output.url}/{TREC_RUN}"
    has_one = record.command == "retrieve"
    return "; with output.trec_run: true it has one, run.trec" if has_one else ""


def _depth(record: JobRecord) -> int | None:
    """How many candidates of each query stayed in the run: its input and a cascade's levels cut, too."""
    config, cuts, number = record.config, [record.config["output.top_k"], record.config.get("input.top_k")], 0
    while (keep := f"levels.{number}.keep") in config:
        number += 1
        is_last = f"levels.{number}.keep" not in config
        if is_last or config[f"levels.{number - 1}.drop"]:
            cuts.append(config[keep])
    return min((cut for cut in cuts if cut is not None), default=None)


def _ranked_rows(output: Directory, record: JobRecord) -> Iterator[_Placed]:
    for file, stamp in run_files(output, record.identity, shard_names(record.shards)):
        table = read_run_file(output, file, stamp)
        columns = (table[column].to_pylist() for column in ("query_id", "passage_id", "rank", "score"))
        for number, (query, passage, rank, score) in enumerate(zip(*columns, strict=True), start=1):
            place = f"{output.url}/{file} row {number}"
            try:
                yield place, RunRow(id_text(query), id_text(passage), -rank, score)
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{place}: query {query!r} or passage {passage!r} is no UTF-8 text, as ids in qrels are"
                ) from error
