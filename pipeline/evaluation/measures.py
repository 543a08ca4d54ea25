"""How good a run is, and whether it is better than another: measures, and a paired significance test."""

from codecs import BOM_UTF8
from collections.abc import Iterable
from dataclasses import dataclass

import ir_measures
import numpy as np
import numpy.typing as npt
from ir_measures import Measure, Qrel, ScoredDoc
from scipy.stats import permutation_test

from pipeline.errors import ConfigError, InputError
from pipeline.tables.input.files import open_input
from pipeline.tables.output.run import RunRow, read_whole_run

DEFAULT_MEASURES = "nDCG@10 RR@10 AP R@10"
_RESAMPLES = 10_000
_BEIR_HEADER = [b"query-id", b"corpus-id", b"score"]


@dataclass(frozen=True)
class Comparison:
    """One measure over the judged queries; `before` and what follows from it is None without a baseline."""

    measure: str
    query_ids: tuple[str, ...]
    after: npt.NDArray[np.float64]
    """A value a query."""
    before: npt.NDArray[np.float64] | None

    @property
    def p_value(self) -> float | None:
        """Of the two-sided paired randomization test (Smucker, Allan, Carterette, CIKM 2007)."""
        if self.before is None:
            return None
        if np.array_equal(self.before, self.after):
            return 1.0
        test = permutation_test(
            (self.after, self.before),
            lambda a, b, axis: np.mean(a - b, axis=axis),
            permutation_type="samples",
            n_resamples=_RESAMPLES,
            rng=np.random.default_rng(0),
        )
        return float(test.pvalue)


def evaluate(run: str, qrels: str, baseline: str | None, measures: str) -> list[Comparison]:
    """Measure `run`, and `baseline` beside it, over the queries that the qrels judge.

    A judged query that a run lacks counts as 0 (trec_eval -c).
    Paths are TREC files, or output directories of the job. A run that was cut at top_k is compared with the
    baseline cut at the same depth. Raises InputError for an unreadable file, ConfigError for a measure.
    """
    parsed = _parse_measures(measures)
    judgments = read_qrels(qrels)
    rows, top_k = read_whole_run(run)
    judged = {judgment.query_id for judgment in judgments}
    if not any(row.query_id in judged for row in rows):
        raise InputError(f"{qrels}: judges none of the queries of {run}")
    after = _per_query(parsed, judgments, rows)
    before = None
    if baseline is not None:
        baseline_rows, _ = read_whole_run(baseline)
        before = _per_query(parsed, judgments, _cut(baseline_rows, top_k))
    return [_compare(measure, after, before) for measure in parsed]


def read_qrels(url: str) -> list[Qrel]:
    """Judgments from a TREC file (query iteration passage relevance) or one of BEIR's, known by its header.

    Raises InputError naming the line.
    """
    judgments: list[Qrel] = []
    beir = False
    with open_input(url) as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1 and line.removeprefix(BOM_UTF8).split() == _BEIR_HEADER:
                beir = True
                continue
            try:
                judgments.append(_beir_qrel(line) if beir else _trec_qrel(line))
            except ValueError as error:
                form = "query, tab, passage, tab, score" if beir else "query iteration passage relevance"
                raise InputError(f"{url} line {number}: not `{form}`") from error
    if not judgments:
        raise InputError(f"{url}: no judgments in it")
    return judgments


def _trec_qrel(line: bytes) -> Qrel:
    query_id, iteration, passage_id, relevance = (part.decode() for part in line.split())
    return Qrel(query_id, passage_id, int(relevance), iteration)


def _beir_qrel(line: bytes) -> Qrel:
    query_id, passage_id, relevance = line.decode().rstrip("\r\n").split("\t")
    return Qrel(query_id, passage_id, int(relevance), "0")


Values = dict[str, dict[str, float]]
"""By measure, by query."""


def _parse_measures(names: str) -> list[Measure]:
    try:
        parsed = [ir_measures.parse_measure(name) for name in names.split()]
    except (ValueError, NameError, SyntaxError) as error:
        raise ConfigError(f"measures {names!r}: {error}; write them as in `{DEFAULT_MEASURES}`") from error
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
    # trec_eval's order: by score, then by passage id, both descending.
    ordered = sorted(rows, key=lambda row: (row.score, row.passage_id), reverse=True)
    seen: dict[str, int] = {}
    kept = []
    for row in ordered:
        seen[row.query_id] = seen.get(row.query_id, 0) + 1
        if seen[row.query_id] <= top_k:
            kept.append(row)
    return kept


def _compare(measure: Measure, after: Values, before: Values | None) -> Comparison:
    name = str(measure)
    queries = sorted(after[name].keys() | (before or {}).get(name, {}).keys())
    return Comparison(
        measure=name,
        query_ids=tuple(queries),
        after=np.array([after[name].get(query, 0.0) for query in queries]),
        before=None if before is None else np.array([before[name].get(query, 0.0) for query in queries]),
    )
