"""What is left of a job, in time, money and actors, told of any command whose actors hold a model. Pure, but
for a pass that is timed.

The unit is the actor-hour, of one actor of a pool: it is the same for few actors and for many.
"""

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.errors import ConfigError
from pipeline.placement import JobActors

MEASURE = "measure"
"""In place of a speed: find it here."""
START_S = 300.0
"""Set aside for the start: a machine that is added, an image that is pulled, weights that are loaded."""
_UNEVEN = 1.1
"""Shards take no equal time, and actors don't begin and end together."""
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_HOURS = re.compile(r"(\d+(?:\.\d+)?)h")
_MEASURED_S = 3.0
"""A pass that takes so long tells the speed."""
_FIRST = 64
_SLOWEST = 1e-6


def told_rate(how: str, unit: str) -> float | None:
    """How fast an actor is, where `--speed` says it in a number. Raises ConfigError for one that is no speed.

    unit: such as pairs/s.
    """
    try:
        rate = float(how)
    except ValueError:
        return None
    if not _SLOWEST <= rate < math.inf:
        raise ConfigError(f"--speed {how}: needs {unit} above 0, {_SLOWEST:g} or more")
    return rate


@dataclass(frozen=True)
class Pass:
    """What a timed pass took."""

    number: int
    """Of pairs or texts."""
    tokens: int
    seconds: float


def timed(work: Callable[[int], int], most: int) -> Pass:
    """By more and more, up to `most`, until a pass takes long enough to tell.

    work: does so many and gives how many tokens went through the model.
    """
    number = _FIRST
    while True:
        number = min(number, most)
        begin = time.perf_counter()
        tokens = work(number)
        seconds = time.perf_counter() - begin
        if seconds >= _MEASURED_S or number == most:
            return Pass(number, tokens, seconds)
        number *= 4


def price(pools: Sequence[JobActors], hours: Sequence[float]) -> float | None:
    """Of so many actor-hours of each pool. None where a pool's actors have no price."""
    total = 0.0
    for actors, each in zip(pools, hours, strict=True):
        if actors.price_per_hour is None:
            return None
        total += actors.price_per_hour * each
    return total


def per_million(cost: float, number: float) -> float:
    return float(f"{cost / number * 1e6:.6g}")


def hours_until(text: str, now: datetime) -> float:
    """text: a time of day, the next one of the clock that `now` is of, or hours such as 6h."""
    if (hours := _HOURS.fullmatch(text)) is not None:
        return float(hours[1])
    if (clock := _TIME.fullmatch(text)) is None:
        raise ConfigError(f"--by {text}: needs a time of day such as 18:00, or hours from now such as 6h")
    then = now.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
    return ((then if then > now else then + timedelta(days=1)) - now).total_seconds() / 3600


@dataclass(frozen=True)
class Work:
    """What is left to do for each pool of actors, in shards that go from one to the next."""

    shards: int
    actor_hours: tuple[float, ...]
    """One a pool."""

    def hours_by(self, actors: Sequence[int]) -> float:
        """With so many actors in each pool, the start included: the busiest pool's, and a shard's at the
        others.
        """
        busy = [
            -(-self.shards // number) * each for number, each in zip(actors, self._shard_hours, strict=True)
        ]
        return START_S / 3600 + max(
            whole + sum(self._shard_hours) - one for whole, one in zip(busy, self._shard_hours, strict=True)
        )

    def actors_within(self, hours: float) -> list[int] | None:
        """How many actors each pool needs to be done within these hours. None: no number is enough."""
        left = hours - START_S / 3600
        needed = []
        for one in self._shard_hours:
            # How many shards one actor does, beside the time in which the others have the first or last one.
            rounds = math.floor((left - sum(self._shard_hours) + one) / one) if one else self.shards
            if rounds < 1:
                return None
            needed.append(-(-self.shards // rounds))
        return needed

    @property
    def _shard_hours(self) -> list[float]:
        return [_UNEVEN * hours / self.shards for hours in self.actor_hours]


def time_of(pools: Sequence[JobActors], work: Work, executor: str) -> str:
    """executor: the job's. One that is `here` has no actors: what they would do is told beside it."""
    actors = [min(pool.max, work.shards) for pool in pools]
    whole = f"about {_hours(sum(work.actor_hours))}"
    own = f"{whole} in this process; on a cluster" if executor == "here" else f"{whole} of actors;"
    return (
        f"{own} {_hours(work.hours_by(actors))} by {_listed(actors)} ({_fields(pools, 'max')}),"
        f" {START_S / 60:.0f} minutes of it for the start"
    )


def cost_of(pools: Sequence[JobActors], work: Work, done: float, unit: str) -> str:
    """done: how many `unit` (such as pairs) it would do."""
    total = price(pools, work.actor_hours)
    if total is None:
        return f"not told: set {_fields(pools, 'price_per_hour')} to what an actor costs an hour"
    return (
        f"about {rounded(total, 2)}, {rounded(per_million(total, max(1, done)), 2)} a million {unit}, by"
        f" {_fields(pools, 'price_per_hour')}; starting and waiting come on top"
    )


def actors_by(by: str, hours: float, pools: Sequence[JobActors], work: Work, executor: str) -> str:
    needed = work.actors_within(hours)
    when = f"{by} is in {_hours(hours)}"
    if needed is None:
        return f"{when}: too soon for one shard, however many actors; lower shard_pairs, or allow more time"
    gpus, cpus = (
        sum(number * getattr(actors, option) for number, actors in zip(needed, pools, strict=True))
        for option in ("num_gpus", "num_cpus")
    )
    held = f"{gpus:g} GPUs and {cpus:g} CPUs" if gpus else f"{cpus:g} CPUs"
    enough = all(number <= actors.max for number, actors in zip(needed, pools, strict=True))
    way = "which the config allows" if enough else f"set {_fields(pools, 'max')} to that"
    where = "on a cluster it needs" if executor == "here" else "needs"
    return f"{when}: {where} {_listed(needed)} ({held}), {way}"


def _fields(pools: Sequence[JobActors], option: str) -> str:
    return f"actors.{option}" if len(pools) == 1 else f"the levels' actors.{option}"


def _listed(actors: Sequence[int]) -> str:
    """`3 actors`, or of a cascade `3 + 1 actors`."""
    return f"{' + '.join(map(str, actors))} actor{'s' * (sum(actors) != 1)}"


def rounded(value: float, decimals: int) -> str:
    """With so many decimals; a small one with four digits that count, since it is not nothing."""
    return f"{value:,.{decimals}f}" if value >= 1 or not value else f"{value:.4g}"


def _hours(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:,.1f} minutes"
