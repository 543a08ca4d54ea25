"""Every metric, with its labels, as the code makes it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import Mock, patch

from docs.site.reference.markdown import code, page, prose, table
from pipeline.reporting import metrics as of_job
from serve import metrics as of_endpoint

_ABOUT = """The exporter of each Ray node has them under these names. Ray adds labels of its own. A histogram
has the series `_bucket`, `_sum` and `_count`; `_sum` is about right only: Ray adds the middle of a value's
bucket, not the value. [Observability](../observability.md) tells what to look at."""

_STEPS = """All are of this start. A first stage does one step after another, each in many tasks: `read`,
`drop`; for each source `index`, `statistics` (BM25) or `share`, `embed_shared`, `embed`, and then `search`;
at last `merge`."""


class Metric(NamedTuple):
    kind: str
    name: str
    text: str
    labels: tuple[str, ...]


@contextmanager
def noted(module: ModuleType) -> Iterator[list[Metric]]:
    """Takes the place of Ray's classes and notes what is made of them."""
    made: list[Metric] = []

    def noting(kind: str) -> Callable[..., Any]:
        def make(name: str, text: str, *rest: Any) -> Any:
            made.append(Metric(kind, name, text, tuple(rest[-1])))  # a histogram's boundaries come before
            return Mock()

        return make

    kinds = [name for name in ("Counter", "Gauge", "Histogram") if hasattr(module, name)]
    with patch.dict(vars(module), {name: noting(name.lower()) for name in kinds}):
        yield made


def of_jobs() -> list[Metric]:
    with noted(of_job) as made:
        of_job.Metrics("out", {}, done=0, actors=0)
    return made


def of_first_stages() -> list[Metric]:
    with noted(of_job) as made:
        of_job.TaskMetrics("out", "embed", tasks=0)
    return made


def of_the_endpoint() -> list[Metric]:
    with noted(of_endpoint) as made:
        of_endpoint.ApiMetrics()
        of_endpoint.ReplicaMetrics("model")
    return made


def _table(metrics: list[Metric]) -> str:
    rows = (
        (code(f"ray_{each.name}"), each.kind, ", ".join(map(code, each.labels)), prose(each.text))
        for each in metrics
    )
    return table(("name", "kind", "labels", "meaning"), rows)


def made() -> str:
    parts = [
        f"## Of a job that reranks\n\nCounters are of this start; gauges are of the whole job."
        f"\n\n{_table(of_jobs())}",
        f"## Of a first stage\n\n{_STEPS}\n\n{_table(of_first_stages())}",
        f"## Of the endpoint\n\n{_table(of_the_endpoint())}",
    ]
    return page("Metrics", _ABOUT, parts)
