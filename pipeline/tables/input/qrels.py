"""Relevance judgments: qrels files of TREC's form or BEIR's."""

from pipeline.errors import InputError
from pipeline.tables.input.limits import DEFAULT_LIMITS
from pipeline.tables.input.text_file import open_text
from pipeline.tables.input.text_lines import numbered_lines
from pipeline.tables.input.trec_lines import QRELS_FORM, Judgment, qrels_line, relevance_of

_BEIR_HEADER = [b"query-id", b"corpus-id", b"score"]
_BEIR_FORM = "query, tab, passage, tab, score"
_LEAST, LARGEST_RELEVANCE = -(2**31), 1_000_000
"""Measures are computed by trec_eval's code, which takes memory for each relevance up to the largest."""


def read_judgments(url: str) -> list[Judgment]:
    """Judgments from a TREC file (query iteration passage relevance) or one of BEIR's, known by its header.

    A negative relevance counts as not relevant, as in trec_eval. Raises InputError naming the line, also for
    a passage that is judged twice for a query, which trec_eval refuses.
    """
    judgments: list[Judgment] = []
    lines: dict[tuple[str, str], int] = {}
    parse, form = qrels_line, QRELS_FORM
    with open_text(url, DEFAULT_LIMITS) as text:
        for _, number, line in numbered_lines(text, 0, None, 1):
            if not judgments and line.split() == _BEIR_HEADER:
                parse, form = _beir_line, _BEIR_FORM
                continue
            judgment = parse(line)
            if judgment is None:
                way_out = _way_out(line) if form == QRELS_FORM and not judgments else ""
                raise InputError(f"{url} line {number}: not `{form}`, with an integer at the end{way_out}")
            query_id, passage_id, relevance = judgment.query_id, judgment.passage_id, judgment.relevance
            if not _LEAST <= relevance <= LARGEST_RELEVANCE:
                raise InputError(
                    f"{url} line {number}: relevance {relevance} is beyond {_LEAST} to {LARGEST_RELEVANCE}"
                )
            first = lines.setdefault((query_id, passage_id), number)
            if first != number:
                raise InputError(
                    f"{url} line {number}: judges passage {passage_id!r} of query {query_id!r} a second time,"
                    f" after line {first}; keep one of them"
                )
            judgments.append(judgment)
    if not judgments:
        raise InputError(f"{url}: no judgments in it")
    return _as_measured(judgments)


def _as_measured(judgments: list[Judgment]) -> list[Judgment]:
    """The same to every measure: any below 0 is 0, judged and not relevant.

    bpref and trec_eval's judged lists would take -1 for unjudged, other measures for not relevant. Of lower
    ones pytrec_eval reads memory that is not its own.
    """
    return [each._replace(relevance=max(each.relevance, 0)) for each in judgments]


def _way_out(line: bytes) -> str:
    """Of a file that may be no qrels at all."""
    if line.lstrip().startswith(b"{"):
        return "; these are JSON lines. A BEIR folder has its judgments in qrels/, such as qrels/test.tsv"
    return "; BEIR's form begins with the line `query-id, tab, corpus-id, tab, score`"


def _beir_line(line: bytes) -> Judgment | None:
    try:
        query_id, passage_id, relevance = line.decode().rstrip("\r\n").split("\t")
        if not (query_id.strip() and passage_id.strip()):
            return None
        return Judgment(query_id, "0", passage_id, relevance_of(relevance.strip()))
    except ValueError:
        return None
