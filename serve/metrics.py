"""What the service tells Prometheus, through the exporter that every Ray node has: `ray_rayrank_...`."""

from ray.util.metrics import Counter, Histogram

from serve.batcher import BatchReport
from serve.front import RequestReport

_SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0]
_TOKENS = [float(2**power) for power in range(6, 19)]
_SHARES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


class ApiMetrics:
    """Of one process of the API."""

    def __init__(self) -> None:
        self._requests = Counter(
            "rayrank_requests_total", "Requests answered", ("path", "model", "status", "problem", "key")
        )
        labels = ("model",)
        self._pairs = Counter("rayrank_served_pairs_total", "Pairs scored for requests", labels)
        self._tokens = Counter("rayrank_served_tokens_total", "Tokens of these pairs", labels)
        self._seconds = Histogram(
            "rayrank_request_seconds", "From a request's first byte to its answer", _SECONDS, labels
        )
        self._queue = Histogram(
            "rayrank_queue_seconds", "From tokenized to the first token on the device", _SECONDS, labels
        )

    def request_done(self, report: RequestReport) -> None:
        tags = {
            "path": report.path if report.status != 404 else "",  # whatever is asked for would be a label
            "model": report.model,
            "status": str(report.status),
            "problem": report.problem,
            "key": report.key,
        }
        self._requests.inc(1, tags)
        if report.scores is not None:
            model = {"model": report.model}
            self._pairs.inc(report.pairs, model)
            self._tokens.inc(max(1, int(report.scores.tokens.sum())), model)
            self._seconds.observe(report.total_s, model)
            self._queue.observe(max(1e-6, report.scores.queue_s), model)


class ReplicaMetrics:
    """Of one replica of a model."""

    def __init__(self, model: str) -> None:
        self._model = {"model": model}
        labels = ("model",)
        self._device = Counter("rayrank_device_seconds_total", "Seconds in which devices scored", labels)
        self._batch_tokens = Histogram(
            "rayrank_batch_tokens", "Tokens that went to a device at once, with padding", _TOKENS, labels
        )
        self._fill = Histogram("rayrank_batch_fill", "Share of these that was no padding", _SHARES, labels)
        self._requests = Histogram(
            "rayrank_batch_requests",
            "Requests of which pairs went to a device at once",
            [1, 2, 4, 8, 16, 32, 64, 128],
            labels,
        )

    def batch_done(self, report: BatchReport) -> None:
        self._device.inc(report.device_s, self._model)
        padded = max(1, report.padded_tokens)
        self._batch_tokens.observe(padded, self._model)
        self._fill.observe(max(1e-6, report.tokens / padded), self._model)
        self._requests.observe(report.requests, self._model)
