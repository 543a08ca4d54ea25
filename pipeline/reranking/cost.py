"""What a job costs: the time in which its actors work, and their price. Pure.

The unit is the actor-hour, of one actor of a level: it is the same for few actors and for many.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pipeline.errors import ConfigError
from pipeline.reranking.cascade import Level
from pipeline.tables.output.markers import Counts, LevelCounts

START_S = 300.0
"""Set aside for the start: a machine that is added, an image that is pulled, weights that are loaded."""
_UNEVEN = 1.1
"""Shards take no equal time, and actors don't begin and end together."""
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_HOURS = re.compile(r"(\d+(?:\.\d+)?)h")


def of_levels(counts: Counts) -> Sequence[Counts | LevelCounts]:
    """A job with one scorer has one level."""
    return counts.levels or (counts,)


def worked_s(level: Level, counts: Counts | LevelCounts) -> float:
    """In which actors had work: beside GPUs, texts are encoded by others."""
    return counts.score_s + (0 if level.actors.num_gpus else counts.encode_s)


def price(levels: Sequence[Level], hours: Sequence[float]) -> float | None:
    """Of so many actor-hours at each level. None where a level's actors have no price."""
    total = 0.0
    for level, each in zip(levels, hours, strict=True):
        if level.actors.price_per_hour is None:
            return None
        total += level.actors.price_per_hour * each
    return total


def paid(levels: Sequence[Level], counts: Counts) -> dict[str, Any]:
    """The fields of a Summary that tell what its work took."""
    of_each = of_levels(counts)
    if len(of_each) < len(levels):  # no shard is done
        return {}
    hours = [worked_s(level, each) / 3600 for level, each in zip(levels, of_each, strict=True)]
    cost = price(levels, hours)
    through_model = counts.pairs - counts.reused - counts.copies
    has_speed = len(levels) == 1 and through_model > 0 and sum(hours) > 0
    return {
        "actor_hours": float(f"{sum(hours):.6g}"),
        "actor_pairs_per_s": float(f"{through_model / sum(hours) / 3600:.6g}") if has_speed else None,
        "cost": cost and float(f"{cost:.6g}"),
        "cost_per_million_pairs": per_million(cost, counts.pairs) if cost and counts.pairs else None,
    }


def per_million(cost: float, pairs: int) -> float:
    return float(f"{cost / pairs * 1e6:.6g}")


def hours_until(text: str, now: datetime) -> float:
    """text: a time of day, the next one of the clock that `now` is of, or hours such as 6h."""
    if (hours := _HOURS.fullmatch(text)) is not None:
        return float(hours[1])
    if (time := _TIME.fullmatch(text)) is None:
        raise ConfigError(f"--by {text}: needs a time of day such as 18:00, or hours from now such as 6h")
    then = now.replace(hour=int(time[1]), minute=int(time[2]), second=0, microsecond=0)
    return ((then if then > now else then + timedelta(days=1)) - now).total_seconds() / 3600


@dataclass(frozen=True)
class Work:
    """What is left to do at each level, in shards that go from one to the next."""

    shards: int
    actor_hours: tuple[float, ...]
    """One a level."""

    def hours_by(self, actors: Sequence[int]) -> float:
        """With so many actors at each level, the start included: the busiest level's, and a shard's at the
        others.
        """
        busy = [
            -(-self.shards // number) * each for number, each in zip(actors, self._shard_hours, strict=True)
        ]
        return START_S / 3600 + max(
            whole + sum(self._shard_hours) - one for whole, one in zip(busy, self._shard_hours, strict=True)
        )

    def actors_within(self, hours: float) -> list[int] | None:
        """How many actors each level needs to be done within these hours. None: no number is enough."""
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
