"""Mining: plan, refuse or resume, work on the shards that are not done, finish."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from pipeline import log, output, registry
from pipeline.begun_versions import with_begun_versions
from pipeline.job_record import JobRecord, known_versions
from pipeline.mining import executors
from pipeline.mining.config import MineConfig
from pipeline.mining.executors import Executor
from pipeline.mining.judged_run import plan_run
from pipeline.mining.shard import Job, task_of
from pipeline.mining.summary import Counts, Summary
from pipeline.output import Start
from pipeline.run_date import late_tables
from pipeline.tables.input.listing import log_skipped
from pipeline.tables.outage import wait_out
from pipeline.tables.output import training_rows
from pipeline.tables.output.attempts import forget_attempts
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.done_marker import names_done
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.output.lease import Lease
from pipeline.tables.output.manifest import Manifest, volumes
from pipeline.tables.output.tasks import TaskReport, done_before
from pipeline.tables.table_files import places

_SHOWN = (training_rows.FOLDER, "unmatched", "rejects")
_RESULTS = (*_SHOWN, TaskReport.FOLDER)
"""The subdirectories that hold results; without any another job may have the directory."""


def run(config: MineConfig, *, check_bytes: bool = False) -> Summary:
    """Mine the whole run, or what an earlier start left of it.

    A finished job is not touched where its files are as it left them: its summary comes back. What is damaged
    is made again.

    check_bytes: read all files to see that; else their lengths are compared. Raises RayrankError for what a
    user can mend.
    """
    begun = time.monotonic()
    start, job = _plan(config)
    log_skipped(job.plan.skipped)

    def work(held: Lease, _finished: Summary | None) -> Summary:
        reports = _work(job, held, check_bytes=check_bytes)
        return _finish(start.output, reports, begun)

    return start.run(work, lambda: len(names_done(start.output, TaskReport)), check_bytes=check_bytes)


def _finish(directory: Directory, reports: Mapping[str, TaskReport], begun: float) -> Summary:
    """Check that all is there, and write what stands beside the shards."""
    output.check_written(directory, list(reports), names_done(directory, TaskReport), "shards")
    counts = Counts.of(report.result for report in reports.values())
    wall_s = round(time.monotonic() - begun, 2)
    summary = Summary(**counts.model_dump(), output=directory.url, wall_s=wall_s)
    forget_attempts(directory)  # the next start, of another day or machine, may do better
    files = {file: stamp for report in reports.values() for file, stamp in report.files.items()}
    manifest = Manifest(folders=volumes(files, _SHOWN), files=files)
    output.finish(directory, summary, _SHOWN, complete=True, manifest=manifest)
    return summary


def describe(config: MineConfig) -> str:
    """What `run` would do, as text; starts no Ray. Raises RayrankError for what it would refuse."""
    start, job = _plan(config)
    record, done = start.record, start.finished() is not None
    lines = [
        f"shards     {record.shards}, {record.pairs} candidates",
        f"output     {start.output.url}{', finished' if done else ''}",
    ]
    return "\n".join([*lines, *(f"skipped    {file}: {why}" for file, why in job.plan.skipped.items())])


def _plan(config: MineConfig) -> tuple[Start[Summary], Job]:
    wait_out(config.max_outage_s)
    with late_tables(config.run_date):
        directory = output.open_directory(config.output.path, places([config.input]))
        with with_begun_versions(config, directory, "mine", _RESULTS) as versioned:
            config = versioned
            plan = plan_run(config, config.shard_pairs)
    record = JobRecord(
        format_version=FORMAT_VERSION,
        command="mine",
        config=config.determining_fields(),
        models={},
        files=plan.identities(),
        shards=len(plan.shards),
        pairs=sum(shard.pairs for shard in plan.shards),
        versions=known_versions({"input": plan.version}),
    )
    rows = config.output.model_copy(update={"path": directory.url})
    config = config.model_copy(
        update={
            "input": config.input.for_workers(),
            "positives": config.positives.for_workers(),
            "output": rows,
        }
    )
    return Start(directory, record, _RESULTS, Summary), Job(config, plan, record.identity)


def _work(job: Job, held: Lease, *, check_bytes: bool) -> dict[str, TaskReport]:
    """What became of each shard, by name and in their order."""
    tasks = [task_of(shard) for shard in job.plan.shards]
    done = done_before(job.output, job.identity, tasks, check_bytes=check_bytes)
    reports = {report.name: report for report in done}
    log.info("planned", shards=len(tasks), done=len(reports))
    held.begins_with(len(reports))
    if left := [task for task in tasks if task.name not in reports]:
        executor = cast("Executor", registry.load(executors, job.config.executor))
        executor.connect(job)
        worked = replace(job, plan=replace(job.plan, shards=()))
        for report in executor.work(worked, left):
            reports[report.name] = report
            held.add(report.result["candidates"])
    return {task.name: reports[task.name] for task in tasks}
