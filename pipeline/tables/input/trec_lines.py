"""The lines of TREC's files, https://trec.nist.gov: runs (query Q0 passage rank score tag) and qrels.

Fields are parted by ASCII blanks only: an id may hold others.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pipeline.errors import InputError

RUN_FORM = "query Q0 passage rank score tag"
QRELS_FORM = "query iteration passage relevance"


class RunLine(NamedTuple):
    """A candidate of a run."""

    query_id: str
    passage_id: str
    rank: bytes
    """As it stands, for a table's columns; so is `tag`. Measures are computed from the scores alone."""
    score: float
    tag: bytes


class Judgment(NamedTuple):
    """A line of qrels."""

    query_id: str
    iteration: str
    passage_id: str
    relevance: int


def run_line(line: bytes) -> RunLine | None:
    """What the line says; None where it is of another form."""
    if b"\r" in line.rstrip(b"\r\n"):  # two lines in one, the second of which would pass for a tag
        return None
    try:
        query_id, _, passage_id, rank, score, *tag = line.split()
        return RunLine(query_id.decode(), passage_id.decode(), rank, float(score), b" ".join(tag))
    except ValueError:
        return None


def run_lines(numbered: Iterable[tuple[int, bytes]], url: str) -> Iterator[RunLine]:
    """What each of (number, line) says. Raises InputError for one of another form."""
    for number, line in numbered:
        candidate = run_line(line)
        if candidate is None:
            raise InputError(f"{url} line {number}: not `{RUN_FORM}`")
        yield candidate


def qrels_line(line: bytes) -> Judgment | None:
    """What the line says; None where it is of another form."""
    try:
        query_id, iteration, passage_id, relevance = (field.decode() for field in line.split())
        return Judgment(query_id, iteration, passage_id, int(relevance))
    except ValueError:
        return None
