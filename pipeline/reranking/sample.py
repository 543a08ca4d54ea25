"""What each level of a job would see and read, from some of its shards. Loads no weights."""

import os
import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.job_record import JobRecord
from pipeline.ranking import query_numbers
from pipeline.reranking.calibration import spread
from pipeline.reranking.cascade import Level, seen
from pipeline.reranking.config import RerankConfig
from pipeline.reranking.reuse import with_previous
from pipeline.reranking.shard import EncodedShard, Job, OpenShard, ScoredShard, encode, hand_on
from pipeline.scoring import ScorerConfig
from pipeline.scoring.batching import Sequences
from pipeline.scoring.copies import Distinct, distinct
from pipeline.scoring.device import Device
from pipeline.scoring.prefix import group_by_prefix
from pipeline.tables.candidates import Plan
from pipeline.tables.input.shards import Shard
from pipeline.tables.output.markers import LevelCounts

_SAMPLED_PAIRS, _MOST_SAMPLED_SHARDS = 20_000, 32


@dataclass
class Sample:
    """What a level would see of the shards looked at."""

    planned: int = 0
    """Pairs of the plan, rows that can't be used among them."""
    candidates: int = 0
    """Those that the level would see."""
    reused: int = 0
    """Of `candidates`, those whose score a previous run has."""
    read: int = 0
    """Of `candidates`, those that go through the model: neither reused nor equal to one before."""
    tokens: int = 0
    """Of these."""
    cut: int = 0
    """Of `candidates` that are not reused, those that are longer than the scorer's lengths."""
    largest: EncodedShard | None = None
    """The one shard of them with the most pairs to score."""

    def add(self, encoded: EncodedShard, config: ScorerConfig) -> None:
        once = distinct(encoded.pairs)
        self.candidates += encoded.results.num_rows
        self.reused += encoded.results.num_rows - len(encoded.pairs)
        self.read += len(encoded.pairs) - once.copies
        self.tokens += _tokens_read(once, config)
        cuts = (encoded.pairs.pairs[name].to_numpy() for name in ("query_cut", "passage_cut"))
        self.cut += int(np.count_nonzero(sum(cuts)))
        if self.largest is None or len(encoded.pairs) > len(self.largest.pairs):
            self.largest = encoded


def sample(config: RerankConfig, plan: Plan, record: JobRecord) -> list[Sample]:
    """Of each level, from shards that are spread evenly.

    Whole shards: what is read once for many pairs (a text that is embedded, a query's tokens, an equal pair)
    is read once a shard. Who goes on is not known without scores: those of a previous run tell most of it,
    and else the first stage's best stand for them.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", str(os.cpu_count()))  # nothing else is at work here
    job = with_previous(Job(config, plan, record.identity), record)
    levels = config.cascade
    samples = [Sample() for _ in levels]
    for at in spread(len(plan.shards), min(_MOST_SAMPLED_SHARDS, -(-_SAMPLED_PAIRS // config.shard_pairs))):
        shard: Shard | OpenShard = plan.shards[at]
        for level, found in zip(levels, samples, strict=True):
            encoded = encode(shard, job)
            found.planned += plan.shards[at].pairs
            found.add(encoded, level.scorer)
            shard = hand_on(ScoredShard(encoded.open, _supposed(encoded, level), LevelCounts()), job)
    return samples


def _supposed(encoded: EncodedShard, level: Level) -> pa.Table:
    """The level's results, where an unknown score is that of the candidate before it in the order so far.

    Where no score of a query is known, its order stays.
    """
    saw = seen(encoded.open.results, level.sees)
    queries = query_numbers(encoded.open.candidates["query_id"].filter(saw))
    rank = encoded.open.results["rank"].filter(saw).to_numpy()
    order = np.lexsort((rank, queries))
    places, results = np.argsort(order), encoded.results
    for at, field in enumerate(results.schema):
        if pa.types.is_floating(field.type):
            known = pd.Series(results[field.name].to_numpy()[order]).groupby(queries[order])
            values = known.ffill().fillna(known.transform("first")).fillna(pd.Series(-rank[order]))
            results = results.set_column(at, field, pa.array(values.to_numpy()[places], field.type))
    return results


def _tokens_read(once: Distinct, config: ScorerConfig) -> int:
    """Real tokens that go through the backbone, as the job counts them."""
    sequences = Sequences.of(once.sequences)
    tokens = int(sequences.lengths.sum())
    if "query_length" in once.inputs.column_names:  # of a decoder, which reads it once where that pays
        on_gpu = config.device.startswith("cuda")
        budget = config.max_batch_tokens or (sys.maxsize if on_gpu else Device(config, None).max_batch_tokens)
        groups = group_by_prefix(sequences, once.inputs["query_length"].to_numpy(), budget)
        tokens -= sum(group.prefix * (len(group.members) - 1) for group in groups)
    return tokens
