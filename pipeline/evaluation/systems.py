"""The runs that are compared: read, cut at one depth, and how much of them is judged."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from ir_measures import Qrel

from pipeline.errors import ConfigError
from pipeline.evaluation.runs import RunRow, by_query, read_whole_run
from pipeline.redaction import redacted


@dataclass(frozen=True)
class System:
    """One run, as it is measured."""

    url: str
    ranking: dict[str, list[RunRow]]
    """By query, best first."""
    top_k: int | None
    """Where a job cut it; None of a TREC run, or where all is kept."""
    is_cut: bool = False
    """Whether passages were left out here, so that it is as deep as the others."""

    @property
    def name(self) -> str:
        return redacted(self.url)

    @property
    def depth(self) -> int:
        """Passages of the query that has most."""
        return max(map(len, self.ranking.values()), default=0)

    def rows(self) -> Iterator[RunRow]:
        """Scored by their places, since the tools behind the measures order equal scores differently."""
        for rows in self.ranking.values():
            yield from (row._replace(score=-place) for place, row in enumerate(rows))

    def cut(self, depth: int) -> "System":
        if self.depth <= depth:
            return self
        kept = {query_id: rows[:depth] for query_id, rows in self.ranking.items()}
        return replace(self, ranking=kept, is_cut=True)


def read_systems(runs: Sequence[str], baseline: str | None) -> tuple[list[System], System | None]:
    """The runs and the baseline, all cut at the smallest top_k of them, so that like is compared with like.

    Raises InputError for one that can't be read, ConfigError for a run that is named twice.
    """
    names = [redacted(run) for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"--run {name}: is given twice; leave one of them out")
    systems = [_read(run) for run in runs]
    first = None if baseline is None else _read(baseline)
    return at_one_depth(systems, first)


def at_one_depth(systems: list[System], first: System | None) -> tuple[list[System], System | None]:
    """All cut at the smallest top_k of them."""
    both = systems if first is None else [first, *systems]
    depth = min((system.top_k for system in both if system.top_k is not None), default=None)
    if depth is None:
        return systems, first
    return [system.cut(depth) for system in systems], None if first is None else first.cut(depth)


def _read(url: str) -> System:
    rows, top_k = read_whole_run(url)
    return System(url, by_query(rows), top_k)


def condensed(system: System, judgments: Sequence[Qrel]) -> System:
    """Without the passages that nobody judged (Sakai, SIGIR 2007): the judged ones move up."""
    judged = {(judgment.query_id, judgment.doc_id) for judgment in judgments}
    kept = {
        query_id: [row for row in rows if (query_id, row.passage_id) in judged]
        for query_id, rows in system.ranking.items()
    }
    return replace(system, ranking=kept)


def judged_share(system: System, judgments: Sequence[Qrel], depth: int | None) -> float:
    """Of each judged query's top `depth` (None: of all its passages), the mean over those that it holds."""
    judged: dict[str, set[str]] = {}
    for judgment in judgments:
        judged.setdefault(judgment.query_id, set()).add(judgment.doc_id)
    shares = [
        np.mean([row.passage_id in judged[query_id] for row in rows[:depth]])
        for query_id, rows in system.ranking.items()
        if query_id in judged
    ]
    return float(np.mean(shares))
