"""The lines of TREC's files, https://trec.nist.gov: runs (query Q0 passage rank score tag) and qrels.

Fields are parted by ASCII blanks only: an id may hold others. As in trec_eval's readers, a line of more
fields than there are is refused: an id with a blank in it would move a rank to where the score belongs. The
tag alone may be missing.
"""

import re
from typing import NamedTuple

_INTEGER = re.compile(r"[+-]?[0-9]+")
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
        if len(tag) > 1 or b"_" in score:  # Python alone takes 1_0 for a number
            return None
        return RunLine(query_id.decode(), passage_id.decode(), rank, float(score), b"".join(tag))
    except ValueError:
        return None


def qrels_line(line: bytes) -> Judgment | None:
    """What the line says; None where it is of another form."""
    try:
        query_id, iteration, passage_id, relevance = (field.decode() for field in line.split())
        return Judgment(query_id, iteration, passage_id, relevance_of(relevance))
    except ValueError:
        return None


def relevance_of(field: str) -> int:
    """Raises ValueError for what is no integer."""
    if _INTEGER.fullmatch(field) is None:
        raise ValueError(f"relevance {field!r} is no integer")
    return int(field)
