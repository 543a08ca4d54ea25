"""Judgments by which a job measures its own run, beside the order in which its candidates came."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ir_measures import Qrel

from pipeline.evaluation.comparison import compare
from pipeline.evaluation.measures import DEFAULT_MEASURES, parse_measures
from pipeline.evaluation.qrels import read_qrels
from pipeline.evaluation.runs import RunRow
from pipeline.evaluation.systems import System, at_one_depth
from pipeline.redaction import redacted
from pipeline.reporting.judged import Judged
from pipeline.tables.input.files import find_file


@dataclass(frozen=True)
class QrelsJudge:
    """A `reporting.judged.Judge`."""

    qrels: str
    identity: str
    judgments: tuple[Qrel, ...]
    queries: frozenset[str]

    def measure(
        self, before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]], depth: int | None
    ) -> Judged:
        """What `evaluate` gives for the run with the first stage as its baseline: both cut at `depth`."""
        (run,), first = at_one_depth([_system("the run", after, depth)], _system("the input", before, None))
        found = compare([run], first, self.judgments, self.queries, parse_measures(DEFAULT_MEASURES))
        return Judged(
            qrels=self.qrels,
            identity=self.identity,
            queries=len(self.queries),
            missing_queries=len(found.runs[0].missing),
            remarks=found.remarks,
            measures={row.measure: row.told for row in found.comparisons},
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


def _system(name: str, rankings: Mapping[str, Sequence[str]], top_k: int | None) -> System:
    ranking = {
        query: [RunRow(query, passage, -place) for place, passage in enumerate(passages)]
        for query, passages in rankings.items()
    }
    return System(name, ranking, top_k)
