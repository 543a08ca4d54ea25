"""What a job would do: its plan, with the tokens estimated from a sample, and whether it fits the cluster.

Loads no weights; looks at a cluster that is there, and starts none.
"""

import os
import sys
from typing import cast

import numpy as np

from pipeline import registry
from pipeline.reranking import executors
from pipeline.reranking.config import RerankConfig
from pipeline.reranking.executors import Executor
from pipeline.reranking.flow import plan_job
from pipeline.reranking.shard import Job, encode
from pipeline.scoring import ScorerConfig
from pipeline.scoring.batching import Sequences
from pipeline.scoring.copies import distinct
from pipeline.scoring.device import Device
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.prefix import group_by_prefix
from pipeline.tables.candidates import Plan
from pipeline.tables.output.markers import done_shards
from pipeline.tables.output.score_table import PreviousScores

_SAMPLED_PAIRS, _MOST_SAMPLED_SHARDS = 20_000, 32


def describe(config: RerankConfig) -> str:
    """The plan as text. Raises RayrankError for what the job itself would refuse before it loads weights."""
    output, scorer, plan, _ = plan_job(config)
    done = sum(1 for _ in done_shards(output, plan.shards))
    pairs = sum(shard.pairs for shard in plan.shards)
    tokens_a_pair, sampled = _sample_tokens(config.model_copy(update={"scorer": scorer.config}), plan)
    files = {file_range.file for shard in plan.shards for file_range in shard.file_ranges}
    lines = [
        f"input    {len(files)} files, {sum(shard.queries for shard in plan.shards)} queries, {pairs} pairs",
        f"shards   {len(plan.shards)} of up to {config.shard_pairs} pairs, {done} of them done",
        f"tokens   about {tokens_a_pair * pairs:,.0f} ({tokens_a_pair:.0f} a pair, from {sampled} pairs)",
        f"model    {config.scorer.model} in {scorer.checkpoint.path}",
        f"cluster  {cast('Executor', registry.load(executors, config.executor)).describe(config.actors)}",
        f"output   {output.url}",
    ]
    return "\n".join([*lines, *(f"skipped  {file}: {reason}" for file, reason in plan.skipped.items())])


def _sample_tokens(config: RerankConfig, plan: Plan) -> tuple[float, int]:
    """Mean tokens a pair over some shards, spread evenly, and the number of pairs looked at.

    Whole shards: what is read once for many pairs (a text that is embedded, a query's tokens, an equal pair)
    is read once a shard.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", str(os.cpu_count()))  # nothing else is at work here
    previous = PreviousScores.of(config.reuse) if config.reuse else None
    job = Job(config, plan, None if previous is None else lambda: previous)
    tokens = pairs = 0
    for at in _spread(len(plan.shards), min(_MOST_SAMPLED_SHARDS, -(-_SAMPLED_PAIRS // config.shard_pairs))):
        encoded = encode(plan.shards[at], job)
        tokens += _tokens_read(encoded.pairs, config.scorer)
        pairs += encoded.candidates.num_rows
    return tokens / max(1, pairs), pairs


def _spread(number: int, wanted: int) -> list[int]:
    """Up to `wanted` of `number` positions, as far from each other and the ends as they come."""
    if number <= wanted:
        return list(range(number))
    return [int(at) for at in np.linspace(0, number - 1, wanted + 2)[1:-1].round()]


def _tokens_read(encoded: EncodedPairs, config: ScorerConfig) -> int:
    """Real tokens that go through the backbone, as the job counts them."""
    once = distinct(encoded)
    sequences = Sequences.of(once.sequences)
    tokens = int(sequences.lengths.sum())
    if "query_length" in once.inputs.column_names:  # of a decoder, which reads it once where that pays
        on_gpu = config.device.startswith("cuda")
        budget = config.max_batch_tokens or (sys.maxsize if on_gpu else Device(config, None).max_batch_tokens)
        groups = group_by_prefix(sequences, once.inputs["query_length"].to_numpy(), budget)
        tokens -= sum(group.prefix * (len(group.members) - 1) for group in groups)
    return tokens
