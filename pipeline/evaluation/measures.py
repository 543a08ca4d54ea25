"""How good a run is, and whether it is better than another."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import ir_measures
import numpy as np
import numpy.typing as npt
from ir_measures import Measure, Qrel, ScoredDoc

from pipeline.errors import ConfigError, InputError
from pipeline.evaluation.qrels import read_qrels
from pipeline.evaluation.runs import RunRow, read_whole_run
from pipeline.evaluation.significance import p_value
from pipeline.ranking import trec_eval_order

DEFAULT_MEASURES = "nDCG@10 RR@10 AP R@10"


@dataclass(frozen=True)
class Comparison:
    """One measure over the judged queries; `before` and what follows from it is None without a baseline."""

    measure: str
    query_ids: tuple[str, ...]
    after: npt.NDArray[np.float64]
    """A value a query."""
    before: npt.NDArray[np.float64] | None
    judged: int
    """Queries of the qrels, which may be more than those measured."""
    missing: frozenset[str]
    """Measured queries that the run has no row of: their value is 0."""
    missing_before: frozenset[str]
    """The same of the baseline."""

    @property
    def p_value(self) -> float | None:
        return None if self.before is None else p_value(self.before, self.after)


def evaluate(
    run: str, qrels: str, baseline: str | None, measures: str, *, common_queries: bool = False
) -> list[Comparison]:
    """Measure `run`, and `baseline` beside it, over the queries that the qrels judge.

    A judged query that a run lacks counts as 0 (trec_eval -c); common_queries: leave out those that the run
    or the baseline lacks. Paths are TREC files, or output directories of the job. A run that was cut at top_k
    is compared with the baseline cut at the same depth. Raises InputError for an unreadable file, ConfigError
    for a measure.
    """
    parsed = _parse_measures(measures)
    judgments = read_qrels(qrels)
    rows, top_k = read_whole_run(run)
    runs = {run: rows}
    if baseline is not None:
        runs[baseline] = _cut(read_whole_run(baseline)[0], top_k)
    judged = {judgment.query_id for judgment in judgments}
    held = {url: judged & {row.query_id for row in rows} for url, rows in runs.items()}
    for url, queries in held.items():
        if not queries:
            raise InputError(f"{qrels}: judges none of the queries of {url}")
    measured = judged.intersection(*held.values()) if common_queries else judged
    if not measured:
        raise InputError(f"{qrels}: judges none of the queries that {run} and {baseline} both have")
    judgments = [judgment for judgment in judgments if judgment.query_id in measured]
    values = {url: _per_query(parsed, judgments, rows) for url, rows in runs.items()}
    ids = tuple(sorted(measured))
    missing = {url: frozenset(measured - queries) for url, queries in held.items()}
    return [
        Comparison(
            measure=name,
            query_ids=ids,
            after=_of(ids, values[run][name]),
            before=None if baseline is None else _of(ids, values[baseline][name]),
            judged=len(judged),
            missing=missing[run],
            missing_before=frozenset() if baseline is None else missing[baseline],
        )
        for name in map(str, parsed)
    ]


def _of(query_ids: tuple[str, ...], values: dict[str, float]) -> npt.NDArray[np.float64]:
    return np.array([values.get(query_id, 0.0) for query_id in query_ids])


Values = dict[str, dict[str, float]]
"""By measure, by query."""


def _parse_measures(names: str) -> list[Measure]:
    try:
        parsed = [ir_measures.parse_measure(name) for name in names.split()]
    except (ValueError, NameError, SyntaxError) as error:
        raise ConfigError(f"measures {names!r}: {error}; write them as in `{DEFAULT_MEASURES}`") from error
    for measure in parsed:
        for name, parameter in measure.SUPPORTED_PARAMS.items():
            if parameter.required and name not in measure.params:
                raise ConfigError(f"measures {names!r}: {measure} needs a {name}: write it as in `R@10`")
    if not parsed:
        raise ConfigError(f"measures: none given; write them as in `{DEFAULT_MEASURES}`")
    return parsed


def _per_query(measures: list[Measure], judgments: list[Qrel], rows: Iterable[RunRow]) -> Values:
    values: Values = {str(measure): {} for measure in measures}
    documents = [ScoredDoc(row.query_id, row.passage_id, row.score) for row in rows]
    try:
        for metric in ir_measures.iter_calc(measures, judgments, documents):
            values[str(metric.measure)][metric.query_id] = metric.value
    except Exception as error:  # the tools that ir_measures calls for rarer measures fail each in their way
        raise ConfigError(f"measures {' '.join(values)}: can't all be computed here: {error}") from error
    return values


def _cut(rows: list[RunRow], top_k: int | None) -> list[RunRow]:
    if top_k is None:
        return rows
    order = trec_eval_order([row.passage_id for row in rows], [row.score for row in rows])
    ranks: Counter[str] = Counter()
    kept = []
    for row in (rows[position] for position in order):
        ranks[row.query_id] += 1
        if ranks[row.query_id] <= top_k:
            kept.append(row)
    return kept
