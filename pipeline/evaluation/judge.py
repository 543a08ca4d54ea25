"""Judgments by which a job measures its own run, beside the order in which its candidates came."""

from collections.abc import Collection
from dataclasses import dataclass

from ir_measures import Qrel

from pipeline.evaluation.comparison import compare
from pipeline.evaluation.measures import DEFAULT_MEASURES, parse_measures
from pipeline.evaluation.qrels import read_qrels
from pipeline.evaluation.runs import RunRow
from pipeline.evaluation.systems import System, at_one_depth
from pipeline.redaction import redacted
from pipeline.reporting.judged import Judged, Rankings
from pipeline.tables.input.files import find_file


@dataclass(frozen=True)
class QrelsJudge:
    """A `reporting.judged.Judge`."""

    qrels: str
    identity: str
    judgments: tuple[Qrel, ...]
    queries: frozenset[str]

    def measure(
        self, before: Rankings, after: Rankings, in_the_table: Collection[str], depth: int | None
    ) -> Judged:
        """What `evaluate` gives for the run with the first stage as its baseline, both cut at `depth`, over
        the queries that both have.
        """
        measured = after.keys() & before.keys() & self.queries
        (run,), first = at_one_depth([_system("the run", after, depth)], _system("the input", before, None))
        parsed = parse_measures(DEFAULT_MEASURES)
        found = compare([run], first, self.judgments, measured, parsed) if measured else None
        return Judged(
            qrels=self.qrels,
            identity=self.identity,
            queries=len(self.queries),
            measured_queries=len(measured),
            lost_queries=len(self.queries & set(in_the_table) - measured),
            remarks=found.remarks if found else (),
            measures={row.measure: row.told for row in found.comparisons} if found else {},
        )


def read_judge(url: str) -> QrelsJudge:
    """Raises InputError for a file that is not there, or holds no judgments."""
    file, judgments = find_file(url), read_qrels(url)
    return QrelsJudge(
        qrels=redacted(url),
        identity=file.identity,
        judgments=tuple(judgments),
        queries=frozenset(judgment.query_id for judgment in judgments),
    )


def _system(name: str, rankings: Rankings, top_k: int | None) -> System:
    ranking = {
        query: [RunRow(query, passage, -place) for place, passage in enumerate(passages)]
        for query, passages in rankings.items()
    }
    return System(name, ranking, top_k)
