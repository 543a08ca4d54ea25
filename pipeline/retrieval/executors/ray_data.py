"""A Ray cluster: the tasks of a step side by side, streamed by Ray Data. Actors embed, tasks do all else.

A task travels as ONE row, what it gave comes back as one: the driver's memory does not grow with the corpus.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy

from pipeline import cluster
from pipeline.reporting.metrics import TaskMetrics
from pipeline.retrieval.plan import Job
from pipeline.retrieval.steps import do
from pipeline.scoring.config import Dtype, ScorerConfig
from pipeline.tables.output.attempts import forget_attempts
from pipeline.tables.output.tasks import Task, TaskReport


def connect(job: Job) -> None:
    cluster.connect([job.config.actors], job.config.shard_passages)
    forget_attempts(job.output)  # of a driver that died: machines die with it, through no fault of a task


def fastest_dtypes(job: Job, scorers: Sequence[ScorerConfig]) -> list[Dtype]:
    actors = job.config.actors
    cluster.connect([actors], 0)
    return cluster.fastest_dtypes(scorers, [actors] * len(scorers))


def work(job: Job, tasks: list[Task]) -> Iterator[TaskReport]:
    """Ray must be joined: `connect`. Tells Prometheus what it tells the caller."""
    (step,) = {task.step for task in tasks}
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
    if step in ("embed", "embed_shared"):
        most = min(actors.max, len(tasks))
        pool = ActorPoolStrategy(min_size=min(actors.min, most), max_size=most)
        options = {**device, "compute": pool, "fn_constructor_kwargs": {"job": job}}
        return dataset.map_batches(Actor, batch_size=1, batch_format="pyarrow", **options)
    searches_vectors = step == "search" and tasks[0].arguments["source"] in job.config.dense
    return dataset.map_batches(
        partial(_do, job=job),
        batch_size=1,
        batch_format="pyarrow",
        **(device if searches_vectors else {"num_cpus": 1}),
    )


class Actor:
    """A process that keeps its model from one task to the next."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __call__(self, row: pa.Table) -> pa.Table:
        return _do(row, self._job)


def _do(row: pa.Table, job: Job) -> pa.Table:
    return pa.table({"report": [do(Task.of_row(row), job).model_dump_json()]})
