"""A training: check the rows, refuse or resume, train, measure, finish."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from pipeline import log, output
from pipeline.errors import fields_under
from pipeline.finetuning import examples as training_rows
from pipeline.finetuning.checkpoints import FOLDER, Checkpoints
from pipeline.finetuning.config import FinetuneConfig
from pipeline.finetuning.examples import Examples
from pipeline.finetuning.held_out import MEASURE, HeldOut
from pipeline.finetuning.loop import Loop, upload
from pipeline.finetuning.progress import METRICS, Progress
from pipeline.finetuning.report import REPORT, render
from pipeline.finetuning.sampling import total_steps
from pipeline.finetuning.start import starting_point
from pipeline.finetuning.student import GroupEncoder, Student, scorer_for_training
from pipeline.finetuning.summary import Summary, model_card
from pipeline.finetuning.trainer import Trainer
from pipeline.interruption import raise_on_sigterm
from pipeline.output import JobRecord
from pipeline.scoring import Scorer
from pipeline.scoring.checkpoint import find_checkpoint
from pipeline.scoring.device import resolve_device
from pipeline.tables.candidates import directory_of
from pipeline.tables.input.listing import log_skipped
from pipeline.tables.outage import wait_out
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.output.manifest import Manifest, Stamps, volumes
from pipeline.tables.output.run import parquet_bytes

_MODEL, _LEFT_OUT = "model", ("rejects", "unmatched")
_RESULTS = (_MODEL, FOLDER)
"""The folders that hold results."""


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


def run(config: FinetuneConfig) -> Summary:
    """Train, or go on where an earlier start stopped. A finished job is not touched: its summary comes back.

    Raises RayrankError for what a user can mend.
    """
    begun = time.monotonic()
    wait_out(config.max_outage_s)
    raise_on_sigterm()
    with _planned(config) as job:
        output.check_output(job.output, job.record, _RESULTS, resumes=True)
        if (finished := _finished(job.output)) is not None:
            log.info("already finished", output=job.output.url)
            return finished
        checkpoints = Checkpoints(job.output, job.record.identity)
        with output.held(job.output, job.record, _RESULTS, checkpoints.steps_done) as held:
            output.withdraw_success(job.output)
            output.write_record(job.output, job.record)
            loop = _loop(job, checkpoints)
            loop.run(held.add)
            return _finish(job, loop, begun)


@contextmanager
def _planned(config: FinetuneConfig) -> Iterator[Job]:
    directory = output.open_directory(config.output.path, _inputs(config))
    source = training_rows.find(config.data)
    log_skipped(source.skipped, of="data")
    held_out = None if config.held_out is None else HeldOut(config.held_out)
    with starting_point(config) as start:
        scorer = scorer_for_training(start, config.data)
        with training_rows.checked(source, config.data, with_scores=config.loss.needs_scores) as examples:
            record = _record(config, source.identities, held_out, len(examples))
            yield Job(config, directory, examples, scorer, held_out, record)


def _inputs(config: FinetuneConfig) -> Iterator[str]:
    """What is read, where it is a place in storage."""
    if config.data.path is not None:
        yield config.data.path
    tables = [None if config.data.mined is None else config.data.mined.input]
    tables.append(None if config.held_out is None else config.held_out.candidates)
    for table in tables:
        if table is not None and (place := directory_of(table)) is not None:
            yield place


def _record(config: FinetuneConfig, files: dict[str, str], held_out: HeldOut | None, rows: int) -> JobRecord:
    """What makes two starts the same training. Its shards are steps."""
    training = config.training
    groups = training.groups_per_step
    steps = total_steps(rows, groups, training.num_train_epochs, training.max_steps)
    with fields_under("scorer"):
        fingerprint = find_checkpoint(config.scorer).fingerprint
    return JobRecord(
        format_version=FORMAT_VERSION,
        command="finetune",
        config=config.determining_fields(),
        models={"scorer.model": fingerprint},
        files=files | ({} if held_out is None else held_out.files),
        shards=steps,
        pairs=steps * groups * config.data.train_group_size,
    )


def _loop(job: Job, checkpoints: Checkpoints) -> Loop:
    """Where the last checkpoint stands, or at the beginning."""
    config, device = job.config, resolve_device(job.config.scorer.device)
    _be_deterministic(config, device)
    torch.manual_seed(config.training.seed)
    student = Student(job.scorer, config.training, device)
    encoder = GroupEncoder(job.scorer)
    for name in (name for name, is_read in encoder.prompts_read.items() if not is_read):
        if job.examples.prompts[name]:
            log.warning(
                "not read, the scorer has no such instruction", field=name, rows=job.examples.prompts[name]
            )
    trainer = Trainer(student, encoder, config.training, config.loss, job.record.shards)
    last = checkpoints.last()
    progress = Progress(job.output, job.record.shards, 0 if last is None else last[0].step)
    loop = Loop(
        config, job.examples, job.scorer, student, trainer, job.held_out, job.output, checkpoints, progress
    )
    if last is not None:
        marker, state = last
        log.info("goes on", steps=f"{marker.step}/{job.record.shards}")
        trainer.load(state)
        loop.measured, loop.best_step = dict(marker.measured), marker.best_step
    elif job.held_out is not None:
        loop.measured[0] = loop.measure(job.scorer.checkpoint.path).mean
        progress.add_measure(0, MEASURE, loop.measured[0])
    return loop


def _be_deterministic(config: FinetuneConfig, device: torch.device) -> None:
    """The same steps give the same bytes of weights, on the same hardware."""
    torch.set_num_threads(config.num_cpus or len(os.sched_getaffinity(0)))
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True, warn_only=True)


def _finish(job: Job, loop: Loop, begun: float) -> Summary:
    """Write the model, what it is told by, and _SUCCESS."""
    with TemporaryDirectory(prefix="rayrank-model-") as name:
        folder = Path(name)
        loop.fetch_best(folder)
        p_value = None
        if loop.best_step is not None:
            before = loop.measure(job.scorer.checkpoint.path)
            p_value = loop.measure(folder).p_value_against(before)
        summary = Summary(
            output=job.output.url,
            rows=len(job.examples),
            rejected=job.examples.rejected,
            left_out=job.examples.queries_left_out,
            steps=loop.trainer.steps_done,
            planned_steps=job.record.shards,
            pairs=loop.progress.pairs,
            loss=loop.progress.last_loss,
            held_out_queries=0 if job.held_out is None else job.held_out.queries,
            measured=loop.measured,
            best_step=loop.best_step,
            p_value=p_value,
            wall_s=round(time.monotonic() - begun, 2),
        )
        (folder / "README.md").write_text(model_card(summary, job.config), encoding="utf-8")
        files = dict(upload(folder, job.output, _MODEL))
    files[METRICS] = loop.progress.write()
    page = render(summary, job.config, job.output.read(METRICS) or b"")
    files[REPORT] = job.output.write(REPORT, page.encode())
    files |= _write_left_out(job)
    folders = sorted({_MODEL, *_LEFT_OUT, *(file.rpartition("/")[0] for file in files)} - {""})
    manifest = Manifest(folders=volumes(files, folders), files=files)
    output.finish(job.output, summary, folders, complete=True, manifest=manifest)
    job.output.remove(FOLDER)
    return summary


def _write_left_out(job: Job) -> Stamps:
    """Rejected rows, and a run's queries that give no row."""
    return {
        f"{folder}/rows.parquet": job.output.write(f"{folder}/rows.parquet", parquet_bytes(table, "rejects"))
        for folder, table in job.examples.tables().items()
    }


def _finished(directory: Directory) -> Summary | None:
    """The summary of a finished output, whole; None where there is something to do."""
    if not output.is_complete(directory) or not output.is_intact(directory):
        return None
    summary = output.read_summary(directory, Summary)
    if summary is None:
        return None
    return summary.model_copy(update={"finished_before": output.when_finished(directory)})
