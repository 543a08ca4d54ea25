"""Pure: numbers to marks and ticks, in percent of a plot's width (from the left) and height (from below).

Percent, so that a plot fits any screen while its letters keep their size.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from pipeline.reporting.totals import SLOTS_S, Timeline
from pipeline.tables.output.statistics import PLACES, Distribution, RankChanges

_MOST_BARS = 96
_GAP_SLOTS = 4
"""The width at which a pause is drawn."""
_MOST_TIMES = 6
_TIME_STEPS_S = (
    1,
    5,
    10,
    15,
    30,
    60,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    10_800,
    21_600,
    43_200,
    86_400,
    604_800,
)


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Bar:
    """A mark, and what it says in words."""

    x: float
    width: float
    height: float
    title: str
    row: tuple[str, ...]
    """The same for the table behind the plot."""


@dataclass(frozen=True)
class Plot:
    bars: list[Bar]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    notes: list[Tick]
    """Places with a label: a median, a pause."""


@dataclass(frozen=True)
class Cell:
    x: float
    y: float
    share: float
    same: bool
    title: str


@dataclass(frozen=True)
class Heatmap:
    """A row a bin of the new rank, a column a bin of the place before; a row's shares sum to 1."""

    labels: list[str]
    cells: list[Cell]

    @property
    def size(self) -> float:
        """Of a cell."""
        return 100 / len(self.labels)


def score_plot(scores: Distribution, within: Distribution, what: str) -> Plot:
    """Shares of the scores, on the axis of `within`, which holds them all."""
    first, last, exponent = within.first, within.first + len(within.counts) - 1, within.exponent
    while last - first >= max(8, min(64, 2 * math.isqrt(within.total))):
        first, last, exponent = first >> 1, last >> 1, exponent + 1
    counts = [0] * (last - first + 1)
    for bin_at, count in enumerate(scores.counts, start=scores.first):
        counts[(bin_at >> (exponent - scores.exponent)) - first] += count
    width, total = math.ldexp(1, exponent), scores.total
    top = max(counts) / total
    low, high = first * width, (last + 1) * width
    bars = []
    for bar, count in enumerate(counts):
        between = f"{number(low + bar * width)} to {number(low + (bar + 1) * width)}"
        words = f"score {between}: {count:,} {what}, {percent(count / total)}"
        row = (between, f"{count:,}", percent(count / total))
        bars.append(Bar(100 * bar / len(counts), 100 / len(counts), 100 * count / total / top, words, row))
    median = scores.quantile(0.5)
    return Plot(
        bars=bars,
        x_ticks=[Tick(100 * (at - low) / (high - low), number(at)) for at in nice(low, high, 8)],
        y_ticks=[Tick(100 * at / top, f"{number(100 * at)}%") for at in nice(0, top, 5)],
        notes=[Tick(100 * (median - low) / (high - low), f"median {number(median, 3)}")],
    )


def rank_changes_plot(rank_changes: RankChanges) -> Heatmap:
    moves = rank_changes.moves
    occupied = [
        number for number in range(len(moves)) if any(moves[number]) or any(row[number] for row in moves)
    ]
    names = place_names()[: occupied[-1] + 1]
    cells = []
    for rank, row in enumerate(moves[: len(names)]):
        for place, count in enumerate(row[: len(names)]):
            share = count / max(1, sum(row))
            words = f"rank {names[rank]} from place {names[place]}: {count:,}, {percent(share)} of the row"
            x, y = 100 * place / len(names), 100 * rank / len(names)
            cells.append(Cell(x, y, share, rank == place, words))
    return Heatmap(names, cells)


def place_names() -> list[str]:
    """Of the bins of places: 1, 2–3, 4–5, ..., >1000."""
    starts = [1, *(place + 1 for place in PLACES)]
    names = [
        f"{start}–{end}" if start < end else f"{end}" for start, end in zip(starts, PLACES, strict=False)
    ]
    return [*names, f">{PLACES[-1]}"]


def throughput_plot(timeline: Timeline) -> Plot:
    """Pairs a minute over the time in which the job was at work; pauses shrink to a gap with a label."""
    for slot_s in SLOTS_S[SLOTS_S.index(timeline.slot_s) :]:
        pairs = timeline.by(slot_s)
        at, pauses, length = _without_pauses(list(pairs), slot_s)
        if length <= _MOST_BARS:
            break
    top = max(pairs.values()) * 60 / slot_s or 1.0
    bars = []
    for slot, count in pairs.items():
        speed, start = count * 60 / slot_s, f"{_moment(slot * slot_s):%Y-%m-%d %H:%M:%S}"
        words = f"{start} UTC, for {duration(slot_s)}: {speed:,.0f} pairs a minute"
        row = (start, f"{count:,.0f}", f"{speed:,.0f}")
        bars.append(Bar(100 * at[slot] / length, 100 / length, 100 * speed / top, words, row))
    return Plot(
        bars=bars,
        x_ticks=[Tick(100 * at[slot] / length, label) for slot, label in _time_labels(list(pairs), slot_s)],
        y_ticks=[Tick(100 * value / top, short(value)) for value in nice(0, top, 5)],
        notes=[Tick(100 * where / length, f"{duration(slots * slot_s)} pause") for where, slots in pauses],
    )


def _without_pauses(slots: list[int], slot_s: int) -> tuple[dict[int, int], list[tuple[float, int]], int]:
    """Where each slot is drawn; where the middle of each pause is, and its length; how many slots in all."""
    shortest = max(60 // slot_s, len(slots) // 20, 1)
    at, pauses, position = {}, [], 0
    for previous, slot in pairwise([slots[0] - 1, *slots]):
        idle = slot - previous - 1
        if idle > shortest:
            pauses.append((position + _GAP_SLOTS / 2, idle))
        position += min(idle, _GAP_SLOTS) if idle > shortest else idle
        at[slot] = position
        position += 1
    return at, pauses, position


def _time_labels(slots: list[int], slot_s: int) -> list[tuple[int, str]]:
    for step_s in (step for step in _TIME_STEPS_S if step >= slot_s):
        ticks = [slot for slot in slots if slot * slot_s % step_s == 0]
        if len(ticks) <= _MOST_TIMES:
            break
    style = "%H:%M:%S" if step_s < 60 else "%H:%M" if step_s < 86_400 else "%d %b"
    return [(slot, f"{_moment(slot * slot_s):{style}}") for slot in ticks or slots[:1]]


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def nice(low: float, high: float, most: int) -> list[float]:
    """Round numbers from low to high, evenly apart."""
    if high <= low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)
    return [
        number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.0995 or not share else f"{share:.1%}" if share >= 0.00095 else "<0.1%"


def short(value: float) -> str:
    """1234567 as 1.2M."""
    for size, sign in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{sign}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """In the two largest units that matter."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 and seconds != whole else f"{whole} s"
    units = [("d", whole // 86_400), ("h", whole // 3600 % 24), ("min", whole // 60 % 60), ("s", whole % 60)]
    first = next(number for number, (_, count) in enumerate(units) if count)
    return " ".join(f"{count} {unit}" for unit, count in units[first : first + 2] if count)


def number(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}g}".replace("-", "−")
