"""What is left of a job, in time, money and actors, as lines of the dry run."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from pipeline.errors import ConfigError
from pipeline.reranking import cost, speed
from pipeline.reranking.cascade import Level
from pipeline.reranking.cost import Work
from pipeline.reranking.flow import Planned
from pipeline.reranking.sample import Sample
from pipeline.reranking.speed import Speed
from pipeline.tables.output.markers import Counts


def estimate(
    planned: Planned, samples: Sequence[Sample], done: Sequence[Counts], how_fast: str | None, by: str | None
) -> Iterator[str]:
    """Of what is left to do; nothing where no speed is known.

    done: of the shards that are done. how_fast: as `speed.told` takes it; None: as these were. by: as
    `cost.hours_until` takes it. Raises ConfigError where it can't be told.
    """
    levels, counts = planned.config.cascade, _sum(done)
    hours = None if by is None else cost.hours_until(by, datetime.now().astimezone())
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
    left = planned.record.pairs - counts.rows
    work = _work(len(planned.plan.shards) - len(done), left, samples, speeds)
    if work.shards:
        yield f"time     {_time_of(levels, work)}"
        yield f"cost     {_cost_of(levels, work, left)}"
        if by is not None and hours is not None:
            yield f"by       {_actors_by(by, hours, levels, work)}"


def _sum(done: Sequence[Counts]) -> Counts:
    total = Counts()
    for counts in done:
        total = total.plus(counts)
    return total


def _work(shards: int, pairs: int, samples: Sequence[Sample], speeds: Sequence[Speed]) -> Work:
    """Of `pairs` that are left, as the sampled ones were."""
    share = pairs / max(1, samples[0].candidates)
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
        yield f"speed    {of}{_number(pairs, 1)} pairs/s and {tokens:,.0f} tokens/s an actor ({source})"


def _time_of(levels: Sequence[Level], work: Work) -> str:
    actors = [min(level.actors.max, work.shards) for level in levels]
    return (
        f"about {_hours(sum(work.actor_hours))} of actors; {_hours(work.hours_by(actors))} by"
        f" {_listed(actors)} ({_fields(levels, 'max')}), {cost.START_S / 60:.0f} minutes of it for the start"
    )


def _cost_of(levels: Sequence[Level], work: Work, pairs: int) -> str:
    total = cost.price(levels, work.actor_hours)
    if total is None:
        return f"not told: set {_fields(levels, 'price_per_hour')} to what an actor costs an hour"
    return (
        f"about {_number(total, 2)}, {_number(cost.per_million(total, pairs), 2)} a million pairs, by"
        f" {_fields(levels, 'price_per_hour')}; starting and waiting come on top"
    )


def _actors_by(by: str, hours: float, levels: Sequence[Level], work: Work) -> str:
    needed = work.actors_within(hours)
    when = f"{by} is in {_hours(hours)}"
    if needed is None:
        return f"{when}: too soon for one shard, however many actors; lower shard_pairs, or allow more time"
    pools = list(zip(needed, (level.actors for level in levels), strict=True))
    gpus, cpus = (
        sum(number * getattr(actors, option) for number, actors in pools)
        for option in ("num_gpus", "num_cpus")
    )
    held = f"{gpus:g} GPUs and {cpus:g} CPUs" if gpus else f"{cpus:g} CPUs"
    enough = all(number <= actors.max for number, actors in pools)
    way = "which the config allows" if enough else f"set {_fields(levels, 'max')} to that"
    return f"{when}: needs {_listed(needed)} ({held}), {way}"


def _fields(levels: Sequence[Level], option: str) -> str:
    return f"actors.{option}" if len(levels) == 1 else f"the levels' actors.{option}"


def _listed(actors: Sequence[int]) -> str:
    """`3 actors`, or of a cascade `3 + 1 actors`."""
    return f"{' + '.join(map(str, actors))} actor{'s' * (sum(actors) != 1)}"


def _number(value: float, decimals: int) -> str:
    """With so many decimals; a small one with four digits that count, since it is not nothing."""
    return f"{value:,.{decimals}f}" if value >= 1 or not value else f"{value:.4g}"


def _hours(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:,.1f} minutes"
