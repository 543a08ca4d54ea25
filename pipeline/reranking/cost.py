"""What a job cost: the time in which its actors worked, and their price. Pure."""

from collections.abc import Sequence
from typing import Any

from pipeline.actor_hours import per_million, price
from pipeline.reranking.cascade import Level
from pipeline.tables.output.markers import Counts, LevelCounts


def of_levels(counts: Counts) -> Sequence[Counts | LevelCounts]:
    """A job with one scorer has one level."""
    return counts.levels or (counts,)


def worked_s(level: Level, counts: Counts | LevelCounts) -> float:
    """In which actors had work: beside GPUs, texts are encoded by others."""
    return counts.score_s + (0 if level.actors.num_gpus else counts.encode_s)


def paid(levels: Sequence[Level], counts: Counts) -> dict[str, Any]:
    """The fields of a Summary that tell what its work took."""
    of_each = of_levels(counts)
    if len(of_each) < len(levels):  # no shard is done
        return {}
    hours = [worked_s(level, each) / 3600 for level, each in zip(levels, of_each, strict=True)]
    cost = price([level.actors for level in levels], hours)
    through_model = counts.pairs - counts.reused - counts.copies
    has_speed = len(levels) == 1 and through_model > 0 and sum(hours) > 0
    return {
        "actor_hours": float(f"{sum(hours):.6g}"),
        "actor_pairs_per_s": float(f"{through_model / sum(hours) / 3600:.6g}") if has_speed else None,
        "cost": cost and float(f"{cost:.6g}"),
        "cost_per_million_pairs": per_million(cost, counts.pairs) if cost and counts.pairs else None,
    }
