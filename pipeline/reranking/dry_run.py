"""What a job would do: its plan, with the tokens estimated from a sample. Starts no Ray, loads no weights."""

from pipeline.errors import ScoringError, fields_under
from pipeline.reranking.config import RerankConfig
from pipeline.reranking.flow import plan_job
from pipeline.reranking.shard import named
from pipeline.scoring import Scorer
from pipeline.tables.candidates import Plan, read_shard
from pipeline.tables.output.markers import done_shards

_SAMPLED_SHARDS, _SAMPLED_PAIRS = 3, 256


def describe(config: RerankConfig) -> str:
    """The plan as text. Raises RayrankError for what the job itself would refuse before it loads weights."""
    output, scorer, plan, _ = plan_job(config)
    done = sum(1 for _ in done_shards(output, plan.shards))
    pairs = sum(shard.pairs for shard in plan.shards)
    tokens_a_pair, sampled = _sample_tokens(config, plan, scorer)
    files = {file_range.file for shard in plan.shards for file_range in shard.file_ranges}
    lines = [
        f"input    {len(files)} files, {sum(shard.queries for shard in plan.shards)} queries, {pairs} pairs",
        f"shards   {len(plan.shards)} of up to {config.shard_pairs} pairs, {done} of them done",
        f"tokens   about {tokens_a_pair * pairs:,.0f} ({tokens_a_pair:.0f} a pair, from {sampled} pairs)",
        f"model    {config.scorer.model} in {scorer.checkpoint.path}",
        f"output   {output.url}",
    ]
    return "\n".join([*lines, *(f"skipped  {file}: {reason}" for file, reason in plan.skipped.items())])


def _sample_tokens(config: RerankConfig, plan: Plan, scorer: Scorer) -> tuple[float, int]:
    """Mean tokens a pair over some shards spread evenly, and the number of pairs looked at."""
    step = max(1, len(plan.shards) // _SAMPLED_SHARDS)
    tokens = pairs = 0
    for shard in plan.shards[::step][:_SAMPLED_SHARDS]:
        candidates, _ = read_shard(shard, config.input, config.output.keep_columns, plan)
        texts = candidates.select(["query", "passage"]).slice(0, _SAMPLED_PAIRS).to_pydict()
        try:
            with fields_under("scorer"):
                encoded = scorer.encode(list(zip(texts["query"], texts["passage"], strict=True)))
        except ScoringError as error:
            raise named(error, candidates) from error
        tokens += len(encoded.sequences.flatten())
        pairs += len(encoded)
    return tokens / max(1, pairs), pairs
