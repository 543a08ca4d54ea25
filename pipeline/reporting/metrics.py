"""What a job tells Prometheus, through the exporter that every Ray node has.

Ray puts `ray_` before each name, labels of its own beside ours, and exports every 10 seconds
(RAY_metrics_report_interval_ms) and when the driver leaves the cluster. Counters are of this start, as
Prometheus expects of a process; gauges are of the whole job.
"""

from ray.util.metrics import Counter, Gauge, Histogram

from pipeline.tables.output.attempts import Quarantined
from pipeline.tables.output.markers import ShardReport

COUNTERS = {
    "rayrank_pairs_total": "Pairs scored",
    "rayrank_reused_pairs_total": "Pairs whose score was taken from a previous run",
    "rayrank_tokens_total": "Tokens that the model read, padding not counted",
    "rayrank_rejected_rows_total": "Input rows that could not be scored, by reason",
    "rayrank_scoring_seconds_total": "Seconds in which actors scored",
}
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

    def __init__(self, output: str, shards: int, done: int, pairs: int, actors: int) -> None:
        self._tags = {"output": output}
        self._counters = {
            name: Counter(name, text, ("output", *(["reason"] if "rejected" in name else [])))
            for name, text in COUNTERS.items()
        }
        self._gauges = {name: Gauge(name, text, ("output",)) for name, text in GAUGES.items()}
        self._shard_seconds = Histogram(
            SHARD_SECONDS, "Seconds in which an actor scored a shard", _BOUNDARIES, ("output",)
        )
        self._done, self._quarantined, self._remaining = done, 0, pairs
        self._set("rayrank_shards_planned", shards)
        self._set("rayrank_actors", actors)
        self._set_gauges()

    def add(self, report: ShardReport) -> None:
        """Another shard is done."""
        self._count("rayrank_pairs_total", report.pairs - report.reused)
        self._count("rayrank_reused_pairs_total", report.reused)
        self._count("rayrank_tokens_total", report.tokens)
        self._count("rayrank_scoring_seconds_total", report.score_s)
        for reason, rows in report.rejected.items():
            self._count("rayrank_rejected_rows_total", rows, reason=reason)
        self._shard_seconds.observe(report.score_s, self._tags)
        self._done += 1
        self._remaining -= report.pairs + sum(report.rejected.values())
        self._set_gauges()

    def quarantine(self, shard: Quarantined) -> None:
        self._quarantined += 1
        self._remaining -= shard.pairs
        self._set_gauges()

    def _set_gauges(self) -> None:
        self._set("rayrank_shards_done", self._done)
        self._set("rayrank_shards_quarantined", self._quarantined)
        self._set("rayrank_pairs_remaining", self._remaining)

    def _set(self, name: str, value: float) -> None:
        self._gauges[name].set(value, self._tags)

    def _count(self, name: str, amount: float, **tags: str) -> None:
        if amount:  # Ray refuses to add nothing
            self._counters[name].inc(amount, self._tags | tags)
