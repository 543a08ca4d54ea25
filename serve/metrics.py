"""What the service tells Prometheus, through the exporter of every Ray node, which puts `ray_` before all."""

from typing import TYPE_CHECKING

from ray.util.metrics import Counter, Histogram

from pipeline.labels import label
from serve.front import RequestReport

if TYPE_CHECKING:  # it brings torch, which the API's processes have no need of
    from serve.batcher import BatchReport

COUNTERS = {
    "rayrank_requests_total": "Requests answered but for pages and probes, by path, status and problem",
    "rayrank_served_pairs_total": "Pairs scored for requests",
    "rayrank_served_tokens_total": "Tokens of these pairs",
    "rayrank_device_seconds_total": "Seconds in which devices scored",
}
_SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0]
HISTOGRAMS = {
    "rayrank_request_seconds": ("From a request's arrival to its answer", _SECONDS),
    "rayrank_queue_seconds": ("From tokenized to the first token on the device", _SECONDS),
    "rayrank_batch_tokens": (
        "Tokens that went to a device at once, with padding",
        [float(2**power) for power in range(6, 19)],
    ),
    "rayrank_batch_fill": ("Share of these that was no padding", [share / 10 for share in range(1, 11)]),
    "rayrank_batch_requests": (
        "Requests of which pairs went to a device at once",
        # Between the whole numbers: a quantile is read between two boundaries, so that of 1 request is 1.
        [0.5, 1.5, 2.5, 4.5, 8.5, 16.5, 32.5, 64.5, 128.5],
    ),
}
_LEAST = 1e-6
"""Ray refuses to observe nothing."""


def _counter(name: str, *labels: str) -> Counter:
    return Counter(name, COUNTERS[name], labels or ("model",))


def _histogram(name: str) -> Histogram:
    text, boundaries = HISTOGRAMS[name]
    return Histogram(name, text, boundaries, ("model",))


class ApiMetrics:
    """Of one process of the API."""

    def __init__(self) -> None:
        self._requests = _counter("rayrank_requests_total", "path", "model", "status", "problem", "key")
        self._pairs = _counter("rayrank_served_pairs_total")
        self._tokens = _counter("rayrank_served_tokens_total")
        self._seconds = _histogram("rayrank_request_seconds")
        self._queue = _histogram("rayrank_queue_seconds")

    def request_done(self, report: RequestReport) -> None:
        tags = {
            "path": report.route,
            "model": label(report.model),
            "status": str(report.status),
            "problem": report.problem,
            "key": label(report.key),
        }
        self._requests.inc(1, tags)
        if report.scores is not None:
            model = {"model": tags["model"]}
            self._pairs.inc(report.pairs, model)
            self._tokens.inc(max(_LEAST, int(report.scores.tokens.sum())), model)
            self._seconds.observe(report.total_s, model)
            self._queue.observe(max(_LEAST, report.scores.queue_s), model)


class ReplicaMetrics:
    """Of one replica of a model."""

    def __init__(self, model: str) -> None:
        self._model = {"model": label(model)}
        self._device = _counter("rayrank_device_seconds_total")
        self._tokens = _histogram("rayrank_batch_tokens")
        self._fill = _histogram("rayrank_batch_fill")
        self._requests = _histogram("rayrank_batch_requests")

    def batch_done(self, report: "BatchReport") -> None:
        self._device.inc(max(_LEAST, report.device_s), self._model)
        self._tokens.observe(max(_LEAST, report.padded_tokens), self._model)
        self._fill.observe(max(_LEAST, report.tokens / max(1, report.padded_tokens)), self._model)
        self._requests.observe(report.requests, self._model)
