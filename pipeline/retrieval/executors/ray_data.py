"""A Ray cluster: the tasks of a step side by side, streamed by Ray Data. Actors embed, and search on GPUs, of
which Ray gives each task a new process; tasks do all else.

A task travels as ONE row, what it gave comes back as one: the driver's memory does not grow with the corpus.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from pipeline import cluster
from pipeline.reporting.metrics import TaskMetrics
from pipeline.retrieval.plan import Job
from pipeline.retrieval.steps import do
from pipeline.scoring.config import Dtype, ScorerConfig
from pipeline.tables.output.attempts import forget_attempts
from pipeline.tables.output.tasks import Task, TaskReport

_WAITS_S = 1800
"""What a task may wait for a machine, and a machine for its libraries and weights."""
_EMBED_S, _EMBED_ON_GPU_S = 2.0, 0.2
"""A text of 512 tokens took 0.24 s by the layers of bge-small, 0.74 s by those of bge-base, 2.5 s by those of
bge-large: float32, a core of a Xeon with AVX-512. A slow core takes twice as long, a usual text a third. The
last are 0.3 TFLOP: 0.08 s of a GPU that computes 4 in a second. Long passages have windows."""
_INDEX_S = 0.02
"""A passage of 100 words took 0.15 ms. This is one of 2,000 on a core that takes six times as long."""
_SEARCH_S = 0.005
"""A passage, by a shard of queries. BM25 took 0.09 ms for 1,024 queries of 100 words, embeddings of 384
numbers 5 us on two cores with AMX. The worst: one core without, 1,024 numbers, ten windows, a slow store."""
_SEARCHED = 1_000_000
"""Passages of one task, unless a shard alone has more: `stages`."""
_OTHERS_S = 0.0002
"""A row of both tables: a task of another step may read them all. Reading took longest, 23 us."""


def no_progress_s(job: Job, step: str) -> float:
    """How long the first of a step's tasks takes at worst. When none is done by then, Ray ends the step."""
    actors, passages = job.config.actors, job.config.shard_passages
    if step in ("embed", "embed_shared"):
        each_s = _EMBED_ON_GPU_S if actors.num_gpus else _EMBED_S / max(1, actors.num_cpus)
        return _WAITS_S + each_s * passages
    if step == "index":
        return _WAITS_S + _INDEX_S * passages
    if step == "search":
        return _WAITS_S + _SEARCH_S * max(_SEARCHED, passages)
    return _WAITS_S + _OTHERS_S * (job.passages.rows + job.queries.rows)


def connect(job: Job) -> None:
    cluster.connect([job.config.actors], 0, encodes=False)  # actors tokenize for themselves
    forget_attempts(job.output)  # of a driver that died: machines die with it, through no fault of a task


def fastest_dtypes(job: Job, scorers: Sequence[ScorerConfig]) -> list[Dtype]:
    actors = job.config.actors
    cluster.connect([actors], 0, encodes=False)
    return cluster.fastest_dtypes(scorers, [actors] * len(scorers))


def work(job: Job, tasks: list[Task]) -> Iterator[TaskReport]:
    """Ray must be joined: `connect`. Tells Prometheus what it tells the caller."""
    (step,) = {task.step for task in tasks}
    DataContext.get_current().execution_no_progress_timeout_s = no_progress_s(job, step)
    metrics = TaskMetrics(job.output.url, step, len(tasks))
    with cluster.own_errors():
        for row in _dataset(job, step, tasks).iter_rows():
            report = TaskReport.model_validate_json(row["report"])
            metrics.add(report.result)
            yield report


def _dataset(job: Job, step: str, tasks: list[Task]) -> ray.data.Dataset:
    rows = [task.to_row() for task in tasks]
    dataset: ray.data.Dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    actors = job.config.actors
    device: dict[str, Any] = {
        "num_cpus": actors.num_cpus, "num_gpus": actors.num_gpus, "label_selector": actors.label_selector
    }  # fmt: skip
    searches_vectors = step == "search" and tasks[0].arguments["source"] in job.config.dense
    if step in ("embed", "embed_shared") or (searches_vectors and actors.num_gpus):
        most = min(actors.max, len(tasks))
        pool = ActorPoolStrategy(min_size=min(actors.min, most), max_size=most)
        options = {**device, "compute": pool, "fn_constructor_kwargs": {"job": job}}
        return dataset.map_batches(Actor, batch_size=1, batch_format="pyarrow", **options)
    return dataset.map_batches(
        partial(_do, job=job),
        batch_size=1,
        batch_format="pyarrow",
        **(device if searches_vectors else {"num_cpus": 1}),
    )


class Actor:
    """A process that keeps its model, or its card, from one task to the next."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __call__(self, row: pa.Table) -> pa.Table:
        return _do(row, self._job)


def _do(row: pa.Table, job: Job) -> pa.Table:
    with cluster.ends_with_its_device():
        return pa.table({"report": [do(Task.of_row(row), job).model_dump_json()]})
