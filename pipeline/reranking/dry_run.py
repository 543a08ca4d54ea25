"""What a job would do: its plan, with the tokens estimated from a sample, and whether it fits the cluster.

Loads no weights; looks at a cluster that is there, and starts none.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

from pipeline import registry
from pipeline.output import JobRecord
from pipeline.reranking import executors
from pipeline.reranking.calibration import spread
from pipeline.reranking.cascade import Level, seen
from pipeline.reranking.config import RerankConfig
from pipeline.reranking.executors import Executor
from pipeline.reranking.flow import plan_job, with_previous
from pipeline.reranking.shard import Job, OpenShard, encode
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.batching import Sequences
from pipeline.scoring.copies import distinct
from pipeline.scoring.device import Device
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.prefix import group_by_prefix
from pipeline.tables.candidates import Plan
from pipeline.tables.input.shards import Shard
from pipeline.tables.output.markers import LevelCounts, done_shards

_SAMPLED_PAIRS, _MOST_SAMPLED_SHARDS = 20_000, 32


def describe(config: RerankConfig) -> str:
    """The plan as text. Raises RayrankError for what the job itself would refuse before it loads weights."""
    output, scorers, plan, record = plan_job(config, calibrates=False)
    done = sum(1 for _ in done_shards(output, record.identity, plan.shards, check_bytes=False))
    pairs = sum(shard.pairs for shard in plan.shards)
    placed = config.with_scorers([scorer.config for scorer in scorers])
    sampled = _sample_tokens(placed, plan, record)
    files = {file_range.file for shard in plan.shards for file_range in shard.file_ranges}
    pools = [level.actors for level in config.cascade]
    lines = [
        f"input    {len(files)} files, {sum(shard.queries for shard in plan.shards)} queries, {pairs} pairs",
        f"shards   {len(plan.shards)} of up to {config.shard_pairs} pairs, {done} of them done",
        *_of_scorers(config, scorers, sampled, pairs),
        f"cluster  {cast('Executor', registry.load(executors, config.executor)).describe(pools)}",
        f"output   {output.url}",
    ]
    return "\n".join([*lines, *(f"skipped  {file}: {reason}" for file, reason in plan.skipped.items())])


@dataclass
class _Sample:
    """What a level would see of the shards looked at."""

    pairs: int = 0
    tokens: int = 0


def _of_scorers(
    config: RerankConfig, scorers: Sequence[Scorer], sampled: Sequence[_Sample], pairs: int
) -> Iterator[str]:
    first = sampled[0]
    for level, scorer, sample in zip(config.cascade, scorers, sampled, strict=True):
        share, looked_at = sample.pairs / max(1, first.pairs), max(1, sample.pairs)
        tokens, model = sample.tokens / looked_at, f"{level.scorer.model} in {scorer.checkpoint.path}"
        if not level.under:
            yield (f"tokens   about {tokens * pairs:,.0f} ({tokens:.0f} a pair, from {first.pairs} pairs)")
            yield f"model    {model}"
            continue
        keeps = "all" if level.keep is None else f"{level.keep} a query"
        yield (
            f"level {level.number}  about {share * pairs:,.0f} pairs and {tokens * share * pairs:,.0f} tokens"
            f" ({tokens:.0f} a pair), keeps {keeps}: {model}"
        )


def _sample_tokens(config: RerankConfig, plan: Plan, record: JobRecord) -> list[_Sample]:
    """What each level would see of some shards, spread evenly.

    Whole shards: what is read once for many pairs (a text that is embedded, a query's tokens, an equal pair)
    is read once a shard. Who goes on is not known without scores; the first stage's best stand for them.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", str(os.cpu_count()))  # nothing else is at work here
    job = with_previous(Job(config, plan, record.identity), record)
    levels = config.cascade
    samples = [_Sample() for _ in levels]
    for at in spread(len(plan.shards), min(_MOST_SAMPLED_SHARDS, -(-_SAMPLED_PAIRS // config.shard_pairs))):
        shard: Shard | OpenShard = plan.shards[at]
        for level, sample in zip(levels, samples, strict=True):
            encoded = encode(shard, job)
            sample.pairs += encoded.results.num_rows
            sample.tokens += _tokens_read(encoded.pairs, level.scorer)
            shard = _passed(encoded.open, level)
    return samples


def _passed(shard: OpenShard, level: Level) -> OpenShard:
    """As if the level had left the order as it was."""
    saw = seen(shard.results, level.sees)
    goes_on = seen(shard.results, level.keep).filter(saw)
    texts = shard.texts.filter(goes_on) if shard.texts.num_rows else shard.texts
    return replace(shard, texts=texts, counts=(*shard.counts, LevelCounts()))


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
