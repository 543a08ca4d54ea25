"""What an engine, a dtype or a quantization costs on the job's own candidates: scores and ranks beside those
of torch in float32.
"""

from collections.abc import Collection, Iterator
from typing import NamedTuple

import ir_measures
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from scipy.stats import kendalltau

from pipeline.errors import InputError
from pipeline.evaluation.measures import values_of
from pipeline.evaluation.qrels import read_qrels
from pipeline.evaluation.runs import RunRow
from pipeline.ranking import query_numbers, ranks
from pipeline.reranking.calibration import at_hand, calibrated, spread
from pipeline.reranking.cascade import named
from pipeline.reranking.config import RerankConfig
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.tables.candidates import Plan, plan_table, read_shard

_EXACT = {"engine": "torch", "dtype": "float32", "quantization": None}
_MEASURE = "nDCG@10"
_SHARDS = 16
"""Over which the queries are spread, where these have enough."""

Scores = npt.NDArray[np.float32]


class Cost(NamedTuple):
    """Of the job's scorer, beside the same one on torch in float32."""

    pairs: int
    queries: int
    largest: float
    mean: float
    """Of the differences between two scores of a pair."""
    tau: float
    worst_tau: float
    """Kendall's, of the two orders of a query's candidates: the mean over the queries, and the worst."""
    ndcg: tuple[float, float] | None
    """Mean nDCG@10 of torch in float32, and of the job's scorer; null without judgments."""

    @property
    def ndcg_loss(self) -> float:
        return 0.0 if self.ndcg is None else self.ndcg[0] - self.ndcg[1]


def is_exact(scorer: ScorerConfig) -> bool:
    """Whether it is what others are compared with."""
    return scorer.model_copy(update=_EXACT) == scorer


def with_calibration(config: RerankConfig) -> RerankConfig:
    """The job with its calibrated model, which is made as the job would make it where there is none yet."""
    if all(level.scorer.quantization is None for level in config.cascade):
        return config
    plan = _plan(config)
    return config.with_scorers([calibrated(level, config, plan, makes=True) for level in config.cascade])


def cost_of(config: RerankConfig, qrels: str | None, queries: int) -> Cost | None:
    """Of a job of one scorer, on up to `queries` of its queries; None where it computes on torch in float32.

    qrels: judgments; queries without any are left out. Fewer queries are compared only where the table has
    no more of them. Raises InputError where there is none.
    """
    (level,) = config.cascade
    if is_exact(level.scorer):
        return None
    exact = level.scorer.model_copy(update=_EXACT)
    judgments = None if qrels is None else read_qrels(qrels)
    judged = None if judgments is None else {judgment.query_id for judgment in judgments}
    candidates = _candidates(config, judged, queries)
    if not candidates.num_rows:
        if qrels is None:
            raise InputError(f"{config.input.path}: holds no candidates that can be scored")
        raise InputError(f"{qrels}: judges none of the queries of {config.input.path}; are the ids the same?")
    with named(level):
        expected, scores = (_scores(scorer, candidates) for scorer in (exact, level.scorer))
    numbers = query_numbers(candidates["query_id"])
    taus = list(_taus(numbers, expected, scores))
    difference = np.abs(expected - scores)
    ndcg = None
    if judgments is not None:
        mine = set(_texts(candidates["query_id"]))
        judgments = [judgment for judgment in judgments if judgment.query_id in mine]
        ndcg = _ndcg(judgments, candidates, expected), _ndcg(judgments, candidates, scores)
    return Cost(
        pairs=len(scores),
        queries=len(np.unique(numbers)),
        largest=float(difference.max()),
        mean=float(difference.mean()),
        tau=float(np.mean(taus)) if taus else 1.0,
        worst_tau=min(taus, default=1.0),
        ndcg=ndcg,
    )


def _plan(config: RerankConfig, sought: Collection[str] = ()) -> Plan:
    return plan_table(config.input, config.output.keep_columns, config.shard_pairs, sought)


def _candidates(config: RerankConfig, judged: set[str] | None, number: int) -> pa.Table:
    """All candidates of up to `number` queries, spread over the table. judged: the only ones to take."""
    plan = _plan(config, judged or ())
    shards = range(len(plan.shards)) if judged is None else plan.found_in
    places = spread(len(shards), min(number, _SHARDS))
    first, further = len(places), [place for place in range(len(shards)) if place not in set(places)]
    tables: list[pa.Table] = []
    taken: dict[int, pa.Array] = {}
    # Where all have been looked at, the first ones give what they kept: a quota is less than a shard.
    for done, place in enumerate([*places, *further, *places]):
        if number == 0:
            break
        shard = plan.shards[shards[place]]
        candidates, _ = read_shard(shard, config.input, config.output.keep_columns, plan)
        ids = candidates["query_id"].unique()
        if place in taken:
            ids = ids.filter(pc.invert(pc.is_in(ids, taken[place])))
        if judged is not None:
            ids = ids.filter(pa.array([text in judged for text in _texts(ids)], pa.bool_()))
        wanted = -(-number // max(1, first - done))
        chosen = taken[place] = ids.take(pa.array(spread(len(ids), wanted), pa.int64()))
        tables.append(candidates.filter(pc.is_in(candidates["query_id"], chosen)))
        number -= len(chosen)
    return pa.concat_tables(tables).combine_chunks() if tables else pa.table({"query_id": []})


def _scores(scorer: ScorerConfig, candidates: pa.Table) -> Scores:
    """(pairs,): by which the job ranks. Leaves no model behind: the next may need the room."""
    pairs = list(zip(candidates["query"].to_pylist(), candidates["passage"].to_pylist(), strict=True))
    with at_hand(scorer.model_copy(update={"normalize": False})) as here:
        scores = Scorer(here).score(pairs).reshape(len(pairs), -1)
    torch.cuda.empty_cache()
    return scores[:, -1]


def _taus(queries: npt.NDArray[np.int64], expected: Scores, scores: Scores) -> Iterator[float]:
    """A query each; none of one whose candidates have no order."""
    for query in np.unique(queries):
        rows = queries == query
        tau = float(kendalltau(expected[rows], scores[rows]).statistic)
        if np.isfinite(tau):
            yield tau


def _ndcg(judgments: list[ir_measures.Qrel], candidates: pa.Table, scores: Scores) -> float:
    ids = zip(_texts(candidates["query_id"]), _texts(candidates["passage_id"]), strict=True)
    order = ranks(candidates["query_id"], candidates["passage_id"], pa.array(scores)).to_pylist()
    rows = (RunRow(query, passage, -rank) for (query, passage), rank in zip(ids, order, strict=True))
    values = values_of([ir_measures.parse_measure(_MEASURE)], judgments, rows)
    return float(np.mean(list(values[_MEASURE].values())))


def _texts(ids: pa.Array | pa.ChunkedArray) -> list[str]:
    """As judgments have them. An id that is no text can't be judged."""
    return [
        value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        for value in ids.to_pylist()
    ]
