"""nDCG@10 on candidates that nothing is trained on, by the scorer that the job's users would run."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import ir_measures
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from ir_measures import Qrel, ScoredDoc

from pipeline import log
from pipeline.errors import InputError
from pipeline.evaluation.qrels import read_qrels
from pipeline.evaluation.significance import p_values
from pipeline.finetuning.checked_row import same_query
from pipeline.finetuning.config import HeldOutConfig
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.tables.candidates import plan_table, read_shard
from pipeline.tables.input.files import find_file
from pipeline.tables.input.listing import log_skipped
from pipeline.tables.output.run import id_text

MEASURE = "nDCG@10"
_SHARD_PAIRS = 100_000


@dataclass(frozen=True)
class Measured:
    """A value a query, in the order of the queries."""

    values: npt.NDArray[np.float64]

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    def p_value_against(self, before: "Measured") -> float:
        """Of a paired randomization test, as pipeline.evaluate makes it."""
        (p_value,) = p_values((self.values - before.values)[:, None])
        return p_value


class HeldOut:
    """The judged queries of a candidate table, in memory: a held-out table is small."""

    def __init__(self, config: HeldOutConfig) -> None:
        """Raises InputError where the table can't be read, or where none of its queries is judged."""
        judged: dict[str, list[Qrel]] = defaultdict(list)
        for judgment in read_qrels(config.qrels):
            judged[judgment.query_id].append(judgment)
        plan = plan_table(config.candidates, {}, _SHARD_PAIRS)
        qrels = find_file(config.qrels)
        self.files = plan.identities() | {qrels.url: qrels.identity}
        """What is read, with the files' identities."""
        self.version = plan.version
        log_skipped(plan.skipped, of="held_out.candidates")
        read = [read_shard(shard, config.candidates, {}, plan) for shard in plan.shards]
        rejects = pa.concat_tables([rejects for _, rejects in read])
        if rejects.num_rows:
            first = rejects.select(["file", "row", "reason"]).slice(0, 1).to_pylist()[0]
            log.warning("held-out rows left out", rows=rejects.num_rows, **first)
        rows = (
            pa.concat_tables([candidates for candidates, _ in read])
            .select(["query_id", "query", "passage_id", "passage"])
            .to_pylist()
        )
        self._rows = [row for row in rows if id_text(row["query_id"]) in judged]
        self.texts = frozenset(same_query(row["query"]) for row in self._rows)
        """The queries that are judged."""
        self._queries = sorted({id_text(row["query_id"]) for row in self._rows})
        self._judgments = [judgment for query in self._queries for judgment in judged[query]]
        if not self._rows:
            raise InputError(
                f"{config.qrels}: judges none of the queries of {config.candidates.path};"
                " are the ids the same?"
            )

    @property
    def queries(self) -> int:
        return len(self._queries)

    def measure(self, checkpoint: Path, scorer: ScorerConfig) -> Measured:
        """The candidates of each query, ranked by a checkpoint (by the last of several heads)."""
        made = Scorer(scorer.model_copy(update={"model": str(checkpoint), "revision": None}))
        scores = made.score([(row["query"], row["passage"]) for row in self._rows])
        # Equal scores as a job ranks them, by passage id: trec_eval would take the last one first.
        order = sorted(range(len(scores)), key=lambda at: (-scores[at], self._rows[at]["passage_id"]))
        ranked = [
            ScoredDoc(id_text(self._rows[at]["query_id"]), id_text(self._rows[at]["passage_id"]), -place)
            for place, at in enumerate(order)
        ]
        measure = ir_measures.parse_measure(MEASURE)
        values = dict.fromkeys(self._queries, 0.0)
        for metric in ir_measures.iter_calc([measure], self._judgments, ranked):
            values[metric.query_id] = metric.value
        return Measured(np.array([values[query] for query in self._queries]))
