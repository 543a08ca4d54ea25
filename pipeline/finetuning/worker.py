"""One worker of a training: the model and its optimizer, at the last checkpoint or at the beginning."""

import os
from dataclasses import dataclass, replace

import torch

from pipeline.errors import TemporaryError
from pipeline.finetuning.checkpoints import Checkpoints
from pipeline.finetuning.config import FinetuneConfig
from pipeline.finetuning.examples import Examples
from pipeline.finetuning.held_out import HeldOut
from pipeline.finetuning.loop import Loop
from pipeline.finetuning.peers import Peers
from pipeline.finetuning.progress import Metrics
from pipeline.finetuning.student import GroupEncoder, Student
from pipeline.finetuning.trainer import Trainer
from pipeline.job_record import JobRecord
from pipeline.scoring import Scorer
from pipeline.scoring.device import resolve_device
from pipeline.tables.output.directory import Directory


@dataclass(frozen=True)
class Job:
    """What is known before anything is trained."""

    config: FinetuneConfig
    output: Directory
    examples: Examples
    scorer: Scorer
    """With which the training begins."""
    held_out: HeldOut | None
    record: JobRecord


def loop_of(job: Job, peers: Peers) -> Loop:
    """Raises TemporaryError where the workers do not see the same checkpoints."""
    config, device = job.config, resolve_device(job.config.scorer.device)
    _be_deterministic(config, device)
    torch.manual_seed(config.training.seed)
    student = Student(job.scorer, config.training, device)
    encoder = GroupEncoder(job.scorer)
    trainer = Trainer(student, encoder, config.training, config.loss, job.record.shards, peers)
    checkpoints = Checkpoints(job.output, job.record.identity)
    last = checkpoints.last()
    done = 0 if last is None else last[0].step
    if peers.from_first(done) != done:
        raise TemporaryError(f"{job.output.url}: the actors see different checkpoints there; start again")
    metrics = Metrics(job.output, done)
    loop = Loop(
        config,
        job.examples,
        job.scorer,
        student,
        trainer,
        job.held_out,
        job.output,
        checkpoints,
        metrics,
        peers,
    )
    if last is None:
        return loop
    marker, state = last
    trainer.load(state)
    return replace(loop, measured=dict(marker.measured), best_step=marker.best_step)


def _be_deterministic(config: FinetuneConfig, device: torch.device) -> None:
    """The same steps give the same bytes of weights, on the same CPUs. On a GPU the attention's gradients are
    summed in any order all the same: torch only warns of it.
    """
    torch.set_num_threads(config.num_cpus or len(os.sched_getaffinity(0)))
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
