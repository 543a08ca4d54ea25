"""Runs to measure: a job's output, or a TREC file."""

from collections.abc import Iterator
from typing import NamedTuple

from pipeline.errors import InputError
from pipeline.output import is_complete, read_record
from pipeline.tables.input.files import open_text
from pipeline.tables.input.text_lines import numbered_lines
from pipeline.tables.input.trec_lines import run_lines
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.run import id_text, read_run_shards
from pipeline.tables.storage import is_directory


class RunRow(NamedTuple):
    """One candidate of a run; ids as text."""

    query_id: str
    passage_id: str
    score: float


def read_whole_run(url: str) -> tuple[list[RunRow], int | None]:
    """The rows of a TREC run, or of a job's output directory, and the top_k at which the latter was cut.

    A job's rows have the negated rank for a score: it tells equal scores apart, as the job did. Raises
    InputError for what is neither, or for an output that is not finished.
    """
    if is_directory(url):
        return _job_rows(Directory(url))
    return list(_trec_rows(url)), None


def _trec_rows(url: str) -> Iterator[RunRow]:
    with open_text(url) as stream:
        numbered = ((number, line) for _, number, line in numbered_lines(stream, 0, None, 1))
        for line in run_lines(numbered, url):
            yield RunRow(line.query_id, line.passage_id, line.score)


def _job_rows(output: Directory) -> tuple[list[RunRow], int | None]:
    record = read_record(output)
    if record is not None and record.command != "rerank":
        raise InputError(f"{output.url}: is an output of {record.command}, and no run")
    if record is None or not is_complete(output):
        raise InputError(f"{output.url}: no finished run (no _SUCCESS in it)")
    rows = []
    for table in read_run_shards(output):
        columns = (table[column].to_pylist() for column in ("query_id", "passage_id", "rank"))
        rows += [
            RunRow(id_text(query), id_text(passage), -rank)
            for query, passage, rank in zip(*columns, strict=True)
        ]
    return rows, record.config["output.top_k"]
