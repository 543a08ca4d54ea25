"""What is left of a job, in time, money and actors, as lines of the dry run."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from pipeline import actor_hours
from pipeline.actor_hours import Work, rounded
from pipeline.errors import ConfigError
from pipeline.reranking import speed
from pipeline.reranking.cascade import Level
from pipeline.reranking.flow import Planned
from pipeline.reranking.sample import Sample
from pipeline.reranking.speed import Speed
from pipeline.tables.output.markers import Counts, ShardReport


def estimate(
    planned: Planned,
    samples: Sequence[Sample],
    done: Sequence[ShardReport],
    how_fast: str | None,
    by: str | None,
) -> Iterator[str]:
    """Of what is left to do; nothing where no speed is known.

    done: the shards that are. how_fast: as `speed.told` takes it; None: as these were. by: as
    `actor_hours.hours_until` takes it. Raises ConfigError where it can't be told.
    """
    levels, counts = planned.config.cascade, _sum([report.counts for report in done])
    hours = None if by is None else actor_hours.hours_until(by, datetime.now().astimezone())
    if how_fast is not None:
        speeds, source = speed.told(how_fast, levels, planned.scorers, samples)
    elif (of_done := speed.of_counts(levels, counts) if done else None) is not None:
        speeds, source = of_done, f"of the {len(done)} shards that are done"
    elif by is not None:
        raise ConfigError(
            f"--by {by}: how fast is an actor? Add --speed measure, --speed N (pairs/s) or --speed OUTPUT"
        )
    else:
        return
    yield from _speed_lines(levels, samples, speeds, source)
    names = {report.name for report in done}
    shards = [shard for shard in planned.plan.shards if shard.name not in names]
    left = sum(shard.pairs for shard in shards)
    work = _work(len(shards), left, samples, speeds)
    if work.shards:
        pools = [level.actors for level in levels]
        yield f"time     {actor_hours.time_of(pools, work, planned.config.executor)}"
        yield f"cost     {actor_hours.cost_of(pools, work, left, 'pairs')}"
        if by is not None and hours is not None:
            yield f"by       {actor_hours.actors_by(by, hours, pools, work, planned.config.executor)}"


def _sum(done: Sequence[Counts]) -> Counts:
    total = Counts()
    for counts in done:
        total = total.plus(counts)
    return total


def _work(shards: int, pairs: int, samples: Sequence[Sample], speeds: Sequence[Speed]) -> Work:
    """Of `pairs` that are left, as the sampled ones were."""
    share = pairs / max(1, samples[0].planned)
    seconds = (
        one.seconds(found.read * share, found.tokens * share)
        for one, found in zip(speeds, samples, strict=True)
    )
    return Work(shards, tuple(each / 3600 for each in seconds))


def _speed_lines(
    levels: Sequence[Level], samples: Sequence[Sample], speeds: Sequence[Speed], source: str
) -> Iterator[str]:
    for level, found, one in zip(levels, samples, speeds, strict=True):
        of = f"level {level.number}: " if level.under else ""
        seconds = one.seconds(found.read, found.tokens)
        if not seconds:
            yield f"speed    {of}nothing to score"
            continue
        pairs, tokens = found.read / seconds, found.tokens / seconds
        yield f"speed    {of}{rounded(pairs, 1)} pairs/s and {tokens:,.0f} tokens/s an actor ({source})"
