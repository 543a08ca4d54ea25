"""What a job would do: its plan, the tokens estimated from a sample, whether it fits the cluster, its cost.

Loads weights only to measure their speed; looks at a cluster that is there, and starts none.
"""

from collections.abc import Iterator, Sequence
from typing import cast

from pipeline import registry
from pipeline.reporting.judged import Judge, ReadJudge
from pipeline.reranking import executors
from pipeline.reranking.config import RerankConfig
from pipeline.reranking.estimate import estimate
from pipeline.reranking.executors import Executor
from pipeline.reranking.flow import plan_job
from pipeline.reranking.sample import Sample, sample
from pipeline.scoring import Scorer
from pipeline.tables.candidates import Plan
from pipeline.tables.output.markers import ShardReport, done_shards


def describe(
    config: RerankConfig,
    how_fast: str | None = None,
    by: str | None = None,
    read_judge: ReadJudge | None = None,
) -> str:
    """The plan as text. Raises RayrankError for what the job itself would refuse before it loads weights.

    how_fast, by: as `estimate` takes them. read_judge: as `flow.run` takes it.
    """
    planned = plan_job(config, read_judge, may_ask=config.executor == "here", calibrates=False)
    config, output, plan, record = planned.config, planned.directory, planned.plan, planned.record
    judge, scorers = planned.judge, planned.scorers
    done = list(done_shards(output, record.identity, plan.shards, check_bytes=False))
    placed = config.with_scorers([scorer.config for scorer in scorers])
    samples = sample(placed, plan, record)
    files = {file_range.file for shard in plan.shards for file_range in shard.file_ranges}
    queries = sum(shard.queries for shard in plan.shards)
    pools = [level.actors for level in config.cascade]
    lines = [
        f"input    {len(files)} files, {queries} queries, {record.pairs} pairs",
        f"shards   {len(plan.shards)} of up to {config.shard_pairs} pairs, {_how_many(done, plan)}",
        *_idle(config, plan),
        *([] if judge is None else [f"qrels    {_in_the_table(judge, plan)}"]),
        *_of_scorers(config, scorers, samples, record.pairs),
        *([] if planned.reuse is None or config.reuse is not None else [_nothing_reused(planned.reuse)]),
        f"cluster  {cast('Executor', registry.load(executors, config.executor)).describe(pools)}",
        *estimate(planned, samples, done, how_fast, by),
        f"output   {output.url}",
    ]
    return "\n".join([*lines, *(f"skipped  {file}: {reason}" for file, reason in plan.skipped.items())])


def _how_many(done: Sequence[ShardReport], plan: Plan) -> str:
    all_done = len(done) == len(plan.shards)
    return "all of them done: nothing to score" if all_done else f"{len(done)} of them done"


def _idle(config: RerankConfig, plan: Plan) -> Iterator[str]:
    actors = max(level.actors.min for level in config.cascade)
    if config.executor != "here" and len(plan.shards) < actors:
        yield f"         fewer than actors.min ({actors}): some get none; a smaller shard_pairs makes more"


def _in_the_table(judge: Judge, plan: Plan) -> str:
    return f"{len(plan.found)} of the {len(judge.queries)} queries that {judge.qrels} judges are in the input"


def _nothing_reused(reuse: str) -> str:
    return f"reuse    none, since no finished run of this scorer lies at {reuse}: every pair is scored"


def _of_scorers(
    config: RerankConfig, scorers: Sequence[Scorer], samples: Sequence[Sample], pairs: int
) -> Iterator[str]:
    looked_at = max(1, samples[0].planned)
    for level, scorer, found in zip(config.cascade, scorers, samples, strict=True):
        share, tokens = found.candidates / looked_at, found.tokens / looked_at
        dtype = level.scorer.dtype
        told = "dtype auto, for the actors' machines to say" if dtype == "auto" else dtype
        model = f"{level.scorer.model} in {scorer.checkpoint.path}, {told}"
        if not level.under:
            of = f"estimated from {found.candidates} pairs: {_a_pair(found, scorer)}"
            yield f"tokens   about {tokens * pairs:,.0f} in all, {of}"
            yield f"model    {model}"
        else:
            keeps = "all" if level.keep is None else f"{level.keep} a query"
            yield (
                f"level {level.number}  about {share * pairs:,.0f} pairs and {tokens * pairs:,.0f} tokens"
                f" ({_a_pair(found, scorer)}), keeps {keeps}: {model}"
            )
        if config.reuse is not None:
            known = found.reused / max(1, found.candidates)
            yield f"reuse    {known:.1%} of {level.under and 'its '}pairs have their score in {config.reuse}"


def _a_pair(found: Sample, scorer: Scorer) -> str:
    """How many tokens a pair has that a model reads, which pairs are cut, and which none has to read."""
    each = f"{found.tokens / max(1, found.read):.0f} tokens each"
    each += ", since equal texts are read once" if scorer.embeds else ""
    if found.cut:
        each += (
            f", {found.cut / (found.candidates - found.reused):.1%} cut at {scorer.lengths.with_positions}"
        )
    if found.read == found.candidates:
        return each
    known = "the previous run or an equal pair" if found.reused else "an equal pair"
    if not found.read:
        return f"none needs scoring, all take their score from {known}"
    share = f"{found.read / found.candidates:.1%}"
    return f"{share} need scoring, {each}; the others take their score from {known}"
