"""Pure: a number that changes over steps, to a line with marks and ticks; in percent, as plots.py has it."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.reporting.plots import Tick, nice, number, short

_MOST_POINTS = 120
_TICKS_X, _TICKS_Y = 8, 5


@dataclass(frozen=True)
class Point:
    """Of one step, or the mean of some; y from below."""

    x: float
    y: float
    title: str
    row: tuple[str, str]
    """The same for the table behind the curve."""


@dataclass(frozen=True)
class Curve:
    points: list[Point]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    notes: list[Tick]
    """Steps with a label: the best one."""


def curve(
    values: Sequence[tuple[int, float]], name: str, *, from_zero: bool, best: int | None = None
) -> Curve | None:
    """(step, value) in order; of many steps the means of equal spans are drawn. None where there are none.

    from_zero: whether the axis begins at 0, for values of which none is below; best: a step to point at.
    """
    if not values:
        return None
    spans = _spans(values)
    first, last = values[0][0], values[-1][0]
    means = [sum(value for _, value in span) / len(span) for span in spans]
    low = 0.0 if from_zero else min(means)
    high = max([low, *means])

    def x_of(step: float) -> float:
        return 100 * (step - first) / (last - first) if last > first else 50.0

    def y_of(value: float) -> float:
        return 100 * (value - low) / (high - low) if high > low else 50.0

    points = []
    for span, mean in zip(spans, means, strict=True):
        at = f"{span[0][0]:,}" if len(span) == 1 else f"{span[0][0]:,} to {span[-1][0]:,}"
        words = f"step {at}: {name} {number(mean)}" + ("" if len(span) == 1 else " on average")
        middle = (span[0][0] + span[-1][0]) / 2
        points.append(Point(x_of(middle), y_of(mean), words, (at, number(mean))))
    steps = sorted({round(at) for at in nice(first, last, _TICKS_X)})
    return Curve(
        points=points,
        x_ticks=[Tick(x_of(step), short(step)) for step in steps],
        y_ticks=[Tick(y_of(at), number(at)) for at in nice(low, high, _TICKS_Y)],
        notes=[] if best is None else [Tick(x_of(best), f"kept: step {best:,}")],
    )


def _spans(values: Sequence[tuple[int, float]]) -> list[Sequence[tuple[int, float]]]:
    size = -(-len(values) // _MOST_POINTS)
    return [values[start : start + size] for start in range(0, len(values), size)]
