"""The process at hand, on its CPUs or one GPU."""

from collections.abc import Callable

from pipeline.finetuning.loop import Done
from pipeline.finetuning.peers import ALONE
from pipeline.finetuning.progress import Line
from pipeline.finetuning.worker import Job, loop_of
from pipeline.interruption import raise_on_sigterm


def connect(_job: Job) -> None:
    raise_on_sigterm()


def work(job: Job, tell: Callable[[Line], None]) -> Done:
    loop = loop_of(job, ALONE)
    for line in loop.run():
        tell(line)
    return loop.finish()
