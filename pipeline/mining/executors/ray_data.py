"""A Ray cluster: the shards side by side, streamed by Ray Data, each by one CPU.

A shard travels as ONE row, what became of it comes back as one: the driver holds no texts.
"""

from collections.abc import Iterator
from functools import partial

import pyarrow as pa
import ray

from pipeline import cluster
from pipeline.mining.shard import Job, do
from pipeline.tables.output.attempts import forget_attempts
from pipeline.tables.output.tasks import Task, TaskReport

_NO_PROGRESS_S = 1800
"""Ray ends what makes none for so long: each shard scans all texts where the run holds ids alone."""


def connect(job: Job) -> None:
    cluster.join(_NO_PROGRESS_S)
    forget_attempts(job.output)  # of a driver that died: machines die with it, through no fault of a shard


def work(job: Job, tasks: list[Task]) -> Iterator[TaskReport]:
    rows = [task.to_row() for task in tasks]
    with cluster.own_errors():
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            partial(_do, job=job), batch_size=1, batch_format="pyarrow", num_cpus=1
        )
        for row in dataset.iter_rows():
            yield TaskReport.model_validate_json(row["report"])


def _do(row: pa.Table, job: Job) -> pa.Table:
    return pa.table({"report": [do(Task.of_row(row), job).model_dump_json()]})
