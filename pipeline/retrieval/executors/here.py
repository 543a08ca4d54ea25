"""The process at hand, one task after another: for small tables, a test, a debugger."""

from collections.abc import Iterator, Sequence

from pipeline.interruption import raise_interrupts
from pipeline.retrieval.plan import Job
from pipeline.retrieval.steps import do
from pipeline.scoring.config import Dtype, ScorerConfig
from pipeline.tables.output.tasks import Task, TaskReport


def connect(job: Job) -> None:
    raise_interrupts()
    if job.config.dense:
        import torch  # noqa: PLC0415  (a first stage by words alone does without)

        # As many as Ray gives a task, or sums would be made in another order.
        torch.set_num_threads(max(1, int(job.config.actors.num_cpus)))


def fastest_dtypes(_job: Job, scorers: Sequence[ScorerConfig]) -> list[Dtype]:
    from pipeline.scoring.dtype import fastest_dtype  # noqa: PLC0415  (torch comes with it)

    return [fastest_dtype(scorer.device) for scorer in scorers]


def work(job: Job, tasks: list[Task]) -> Iterator[TaskReport]:
    for task in tasks:
        yield do(task, job)
