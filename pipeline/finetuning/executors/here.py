"""The process at hand, on its CPUs or one GPU."""

from collections.abc import Callable

from pipeline.finetuning.config import FinetuneConfig
from pipeline.finetuning.loop import Done
from pipeline.finetuning.peers import ALONE
from pipeline.finetuning.progress import Line
from pipeline.finetuning.worker import Job, loop_of
from pipeline.interruption import raise_interrupts
from pipeline.scoring import dtype
from pipeline.scoring.config import Dtype


def fastest_dtype(config: FinetuneConfig) -> Dtype:
    return dtype.fastest_dtype(config.scorer.device)


def connect(_job: Job) -> None:
    raise_interrupts()


def work(job: Job, tell: Callable[[Line], None]) -> Done:
    loop = loop_of(job, ALONE)
    for line in loop.run():
        tell(line)
    return loop.finish()
