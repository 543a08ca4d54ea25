"""A training: check the rows, refuse or resume, train, measure, finish."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from pipeline import log, output, registry
from pipeline.begun_versions import with_begun_versions
from pipeline.errors import fields_under
from pipeline.finetuning import examples as training_rows
from pipeline.finetuning import executors
from pipeline.finetuning.checkpoints import FOLDER, Checkpoints
from pipeline.finetuning.config import FinetuneConfig
from pipeline.finetuning.executors import Executor
from pipeline.finetuning.held_out import HeldOut
from pipeline.finetuning.loop import MODEL, Done
from pipeline.finetuning.mined_rows import MinedRows
from pipeline.finetuning.progress import METRICS, Line, Progress
from pipeline.finetuning.report import REPORT, render
from pipeline.finetuning.row_files import RowFiles
from pipeline.finetuning.sampling import total_steps
from pipeline.finetuning.start import starting_point
from pipeline.finetuning.student import GroupEncoder, scorer_for_training
from pipeline.finetuning.summary import Summary, model_card
from pipeline.finetuning.worker import Job
from pipeline.interruption import raise_interrupts
from pipeline.job_record import JobRecord, known_versions, recorded_dtypes
from pipeline.output import Start
from pipeline.scoring import Scorer
from pipeline.scoring.checkpoint import find_checkpoint
from pipeline.scoring.family import recorded_truncation
from pipeline.tables.input.listing import log_skipped
from pipeline.tables.outage import wait_out
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.output.lease import Lease
from pipeline.tables.output.manifest import Manifest, Stamps, volumes
from pipeline.tables.output.run import parquet_bytes
from pipeline.tables.table_files import places

_LEFT_OUT = ("rejects", "unmatched")
_RESULTS = (MODEL, FOLDER)
"""The folders that hold results."""


def run(config: FinetuneConfig) -> Summary:
    """Train, or go on where an earlier start stopped. A finished job is not touched: its summary comes back.

    Raises RayrankError for what a user can mend.
    """
    begun = time.monotonic()
    wait_out(config.max_outage_s)
    raise_interrupts()
    with _planned(config) as job:

        def work(held: Lease, _finished: Summary | None) -> Summary:
            _warn(job)
            executor = _executor(config)
            executor.connect(job)
            return _finish(job, executor.work(job, _tell(job, held)), begun)

        start = Start(job.output, job.record, _RESULTS, Summary)
        return start.run(work, lambda: Checkpoints(job.output, job.record.identity).steps_done)


def _executor(config: FinetuneConfig) -> Executor:
    place = "here" if config.actors is None else "ray_actors"
    return cast("Executor", registry.load(executors, place))


def _settled(config: FinetuneConfig, directory: Directory) -> FinetuneConfig:
    """With a dtype in place of `auto`, in which held-out data is measured from the first start on."""
    if config.scorer.dtype != "auto" or config.held_out is None:
        return config
    known = recorded_dtypes(directory, "finetune", _RESULTS)
    dtype = known.get("scorer") or _executor(config).fastest_dtype(config)
    return config.model_copy(update={"scorer": config.scorer.model_copy(update={"dtype": dtype})})


def _tell(job: Job, held: Lease) -> Callable[[Line], None]:
    """To the log, and to the heartbeat, which counts steps."""
    progress = Progress(job.record.shards)

    def tell(line: Line) -> None:
        progress.tell(line)
        if "pairs" in line:
            held.add(line["pairs"])

    return tell


@contextmanager
def _planned(config: FinetuneConfig) -> Iterator[Job]:
    directory = output.open_directory(config.output.path, _inputs(config))
    with with_begun_versions(config, directory, "finetune", _RESULTS) as versioned:
        config = versioned
        source = training_rows.find(config.data)
        held_out = None if config.held_out is None else HeldOut(config.held_out)
    log_skipped(source.skipped, of="data")
    with starting_point(config) as start:
        scorer = scorer_for_training(start, config.data)
        config = _settled(config, directory)
        with training_rows.checked(
            source,
            config.data,
            with_scores=config.loss.needs_scores,
            held_out=frozenset() if held_out is None else held_out.texts,
        ) as examples:
            record = _record(config, scorer, source, held_out, len(examples))
            yield Job(config, directory, examples, scorer, held_out, record)


def _inputs(config: FinetuneConfig) -> Iterator[str]:
    """What is read, where it is a place in storage."""
    if config.data.path is not None:
        yield config.data.path
    if config.data.mined is not None:
        yield from places([config.data.mined.input])
    if config.held_out is not None:
        yield from places([config.held_out.candidates])


def _record(
    config: FinetuneConfig,
    scorer: Scorer,
    source: RowFiles | MinedRows,
    held_out: HeldOut | None,
    rows: int,
) -> JobRecord:
    """What makes two starts the same training. Its shards are steps."""
    cut = recorded_truncation(scorer.family, scorer.checkpoint, scorer.config)
    training = config.training
    groups = training.groups_per_step
    steps = total_steps(rows, groups, training.num_train_epochs, training.max_steps)
    with fields_under("scorer"):
        fingerprint = find_checkpoint(config.scorer).fingerprint
    return JobRecord(
        format_version=FORMAT_VERSION,
        command="finetune",
        config=config.determining_fields() | {"scorer.truncation": cut},
        models={"scorer.model": fingerprint},
        files=source.identities | ({} if held_out is None else held_out.files),
        shards=steps,
        pairs=steps * groups * config.data.train_group_size,
        versions=known_versions(
            {
                "data.mined.input": source.version if isinstance(source, MinedRows) else None,
                "held_out.candidates": None if held_out is None else held_out.version,
            }
        ),
    )


def _warn(job: Job) -> None:
    """Of what trains, and not as its giver may think, and of what does not."""
    if job.examples.rejects:
        rows = len(job.examples.rejects)
        log.warning("rejected", rows=rows, first=job.examples.first_reject, left=len(job.examples))
    ignored = GroupEncoder(job.scorer).ignored
    for name, rows in job.examples.prompts.rows.items():
        if rows and name in ignored:
            log.warning("ignored", field=name, rows=rows, reason=ignored[name])
        elif rows:  # scoring knows no rows
            log.info("rows have one of their own, which scoring must be told", field=name, rows=rows)
    if job.examples.held_out:
        log.warning(
            "trained on and held out: nDCG@10 on held-out queries will be too good",
            rows=job.examples.held_out,
        )


def _finish(job: Job, done: Done, begun: float) -> Summary:
    """Write what the model is told by, and _SUCCESS."""
    summary = Summary(
        output=job.output.url,
        rows=len(job.examples),
        rejected=job.examples.rejected,
        left_out=job.examples.queries_left_out,
        steps=done.steps,
        planned_steps=job.record.shards,
        pairs=done.pairs,
        loss=done.loss,
        rows_held_out=job.examples.held_out,
        held_out_queries=0 if job.held_out is None else job.held_out.queries,
        measured=done.measured,
        best_step=done.best_step,
        p_value=done.p_value,
        wall_s=round(time.monotonic() - begun, 2),
    )
    card = f"{MODEL}/README.md"
    prompts = job.examples.prompts.told(
        len(job.examples), job.config.scorer, GroupEncoder(job.scorer).ignored
    )
    page = render(summary, job.config, job.output.read(METRICS) or b"")
    files = {
        **done.files,
        card: job.output.write(card, model_card(summary, job.config, [*prompts]).encode()),
        REPORT: job.output.write(REPORT, page.encode()),
        **_write_left_out(job),
    }
    folders = sorted({MODEL, *_LEFT_OUT, *(file.rpartition("/")[0] for file in files)} - {""})
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
