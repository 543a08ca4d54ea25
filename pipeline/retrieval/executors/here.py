"""The process at hand, one task after another: for small tables, a test, a debugger."""

from collections.abc import Iterator

from pipeline.interruption import raise_on_sigterm
from pipeline.retrieval.plan import Job
from pipeline.retrieval.reading import Result
from pipeline.retrieval.steps import Task, do


def connect(_job: Job) -> None:
    raise_on_sigterm()


def work(job: Job, tasks: list[Task]) -> Iterator[tuple[str, Result]]:
    for task in tasks:
        yield task.name, do(task, job)
