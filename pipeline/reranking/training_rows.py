"""What a shard of the run teaches: a training row a query, with the scorer as the teacher."""

from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.ranking import query_numbers
from pipeline.reranking.shard import Job
from pipeline.tables.candidates import read_shard
from pipeline.tables.input.shards import Shard
from pipeline.tables.output.training_rows import training_row
from pipeline.tables.positives import PositivesConfig, are_positive

_TEXTS = ("query", "passage")


class TrainingRows(NamedTuple):
    """Of a shard."""

    data: bytes
    rows: int
    left_out: int
    """Queries without a positive, or without a negative, which no trainer could use."""


def training_rows(ranked: pa.Table, shard: Shard, job: Job, positives: PositivesConfig) -> TrainingRows:
    """Of every candidate that the last level scored: the positives, wherever they rank, and as negatives the
    others that stay in the run, both best first. Where that level fuses, the fused score is the teacher's: a
    student then learns from the scorers of all levels.

    ranked: all candidates of the shard, with `place`, their number in it. The scores are raw ones: a
    teacher's sigmoid would hide what it knows. Reads the texts again, which the run does without.
    """
    texts = _texts(shard, job).take(ranked["place"])
    score = ranked[job.config.cascade[-1].ranks_by].to_numpy()
    scored, positive = ~np.isnan(score), are_positive(ranked, positives)
    stays = np.ones(len(score), bool)
    if job.config.depth is not None:
        stays = ranked["rank"].to_numpy() <= job.config.depth
    sides = np.select([scored & positive, scored & stays], ["pos", "neg"], "")
    numbers, kept = query_numbers(ranked["query_id"]), ranked["kept"]
    passages, queries = texts["passage"].to_pylist(), texts["query"]
    lines, left_out = [], 0
    for _, group in groupby(range(len(score)), numbers.__getitem__):
        at = list(group)
        pos, neg = ([(passages[i], score[i]) for i in at if sides[i] == side] for side in ("pos", "neg"))
        if pos and neg:
            lines.append(training_row(queries[at[0]].as_py(), pos, neg, kept[at[0]].as_py()))
        else:
            left_out += 1
    return TrainingRows(b"".join(lines), len(lines), left_out)


def _texts(shard: Shard, job: Job) -> pa.Table:
    """Of the candidates, in the order in which the shard was read before."""
    candidates, _ = read_shard(shard, job.config.input, job.config.kept, job.plan)
    return candidates.select(_TEXTS)
