"""The process at hand, one shard after another: for small runs, a test, a debugger."""

from collections.abc import Iterator

from pipeline.interruption import raise_interrupts
from pipeline.mining.shard import Job, do
from pipeline.tables.output.tasks import Task, TaskReport


def connect(_job: Job) -> None:
    raise_interrupts()


def work(job: Job, tasks: list[Task]) -> Iterator[TaskReport]:
    for task in tasks:
        yield do(task, job)
