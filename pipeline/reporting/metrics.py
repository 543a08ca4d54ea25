"""What a job tells Prometheus, through the exporter that every Ray node has.

Ray puts `ray_` before each name, labels of its own beside ours, and exports every 10 seconds
(RAY_metrics_report_interval_ms) and when the driver leaves the cluster. Counters are of this start, as
Prometheus expects of a process; gauges are of the whole job, those of a first stage of one step.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from pipeline.labels import label
from pipeline.redaction import redacted
from pipeline.tables.output.attempts import Quarantined
from pipeline.tables.output.markers import Counts, LevelCounts, ShardReport

COUNTERS: dict[str, tuple[str, Callable[[Counts], float]]] = {
    "rayrank_pairs_total": ("Pairs scored", lambda counts: counts.pairs - counts.reused),
    "rayrank_reused_pairs_total": (
        "Pairs whose score was taken from a previous run",
        lambda counts: counts.reused,
    ),
    "rayrank_tokens_total": (
        "Tokens that the model read, padding not counted",
        lambda counts: counts.tokens,
    ),
    "rayrank_scoring_seconds_total": ("Seconds in which actors scored", lambda counts: counts.score_s),
}
"""Name to what it counts, in words and of a shard's counts."""
LEVEL_COUNTERS: dict[str, tuple[str, Callable[[LevelCounts], float]]] = {
    "rayrank_level_pairs_total": (
        "Pairs scored by a level of a cascade",
        lambda level: level.pairs - level.reused,
    ),
    "rayrank_level_tokens_total": ("Tokens that a level's model read", lambda level: level.tokens),
    "rayrank_level_scoring_seconds_total": (
        "Seconds in which a level's actors scored",
        lambda level: level.score_s,
    ),
}
"""The same of each level of a cascade, by its number; without samples for a job with one scorer."""
REJECTED = "rayrank_rejected_rows_total"
TASK_COUNTERS: dict[str, tuple[str, str]] = {
    "rayrank_embedded_texts_total": ("Texts embedded", "embedded"),
    "rayrank_reused_texts_total": ("Texts whose embedding was taken from an earlier first stage", "reused"),
    "rayrank_tokens_total": (COUNTERS["rayrank_tokens_total"][0], "tokens"),
}
"""Of a first stage: name to what it counts, in words and in what a task gives."""
TASKS_DONE, TASKS_REMAINING = "rayrank_tasks_total", "rayrank_tasks_remaining"
GAUGES = {
    "rayrank_shards_planned": "Shards of the job",
    "rayrank_shards_done": "Shards that are done, by earlier starts as well",
    "rayrank_shards_quarantined": "Shards given up in this start, since processes died of them",
    "rayrank_pairs_remaining": "Pairs of the input not done yet, given-up shards not counted",
    "rayrank_actors": "Actors that score, at most",
}
SHARD_SECONDS = "rayrank_shard_scoring_seconds"
_BOUNDARIES = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0]


class Metrics:
    """Of one start. `output` is the label that tells jobs apart; Ray must be connected."""

    def __init__(self, output: str, planned: Mapping[str, int], done: int, actors: int) -> None:
        """planned: of each shard that this start has to do, its pairs; done: shards of earlier starts."""
        self._tags = {"output": label(redacted(output))}
        self._counters = {name: Counter(name, text, ("output",)) for name, (text, _) in COUNTERS.items()}
        self._level_counters = {
            name: Counter(name, text, ("output", "level")) for name, (text, _) in LEVEL_COUNTERS.items()
        }
        self._rejected = _rejected_rows()
        self._gauges = {name: Gauge(name, text, ("output",)) for name, text in GAUGES.items()}
        self._shard_seconds = Histogram(
            SHARD_SECONDS, "Seconds in which an actor scored a shard", _BOUNDARIES, ("output",)
        )
        self._planned, self._remaining = planned, sum(planned.values())
        self._done, self._quarantined = done, 0
        self._set("rayrank_shards_planned", done + len(planned))
        self._set("rayrank_actors", actors)
        self._set_gauges()

    def add(self, outcome: ShardReport | Quarantined) -> None:
        """Another shard is done, or given up."""
        if isinstance(outcome, ShardReport):
            self._count(outcome.counts)
            self._done += 1
        else:
            self._quarantined += 1
        self._remaining -= self._planned[outcome.name]
        self._set_gauges()

    def _count(self, counts: Counts) -> None:
        for name, (_, value) in COUNTERS.items():
            _increase(self._counters[name], value(counts), self._tags)
        for number, level in enumerate(counts.levels):
            for name, (_, of_level) in LEVEL_COUNTERS.items():
                tags = self._tags | {"level": str(number)}
                _increase(self._level_counters[name], of_level(level), tags)
        _increase_by_reason(self._rejected, counts.rejected, self._tags)
        self._shard_seconds.observe(counts.score_s, self._tags)

    def _set_gauges(self) -> None:
        self._set("rayrank_shards_done", self._done)
        self._set("rayrank_shards_quarantined", self._quarantined)
        self._set("rayrank_pairs_remaining", self._remaining)

    def _set(self, name: str, value: float) -> None:
        self._gauges[name].set(value, self._tags)


class TaskMetrics:
    """Of one step of a first stage, in one start."""

    def __init__(self, output: str, step: str, tasks: int) -> None:
        """tasks: those that this start has to do."""
        self._tags = {"output": label(redacted(output))}
        self._step_tags = self._tags | {"step": step}
        self._counters = {
            name: (Counter(name, text, ("output",)), of_task)
            for name, (text, of_task) in TASK_COUNTERS.items()
        }
        self._rejected = _rejected_rows()
        self._done = Counter(TASKS_DONE, "Tasks done, by step", ("output", "step"))
        self._left = tasks
        self._remaining = Gauge(TASKS_REMAINING, "Tasks of the step not done yet", ("output", "step"))
        self._remaining.set(tasks, self._step_tags)

    def add(self, result: Mapping[str, Any]) -> None:
        """Another task is done. result: what it gave."""
        for counter, of_task in self._counters.values():
            _increase(counter, result.get(of_task, 0), self._tags)
        _increase_by_reason(self._rejected, result.get("rejected", {}), self._tags)
        self._done.inc(1, self._step_tags)
        self._left -= 1
        self._remaining.set(self._left, self._step_tags)


def _rejected_rows() -> Counter:
    return Counter(REJECTED, "Input rows that could not be used, by reason", ("output", "reason"))


def _increase_by_reason(rejected: Counter, rows: Mapping[str, int], tags: dict[str, str]) -> None:
    for reason, number in rows.items():
        _increase(rejected, number, tags | {"reason": reason})


def _increase(counter: Counter, amount: float, tags: dict[str, str]) -> None:
    if amount:  # Ray refuses to add nothing
        counter.inc(amount, tags)
