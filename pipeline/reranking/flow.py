"""The offline job: plan, refuse or resume, work on the shards that are not done, finish.

A shard's data is written first, its marker last; a start takes only the shards that have no marker.
"""

import time
from typing import cast

from pipeline import log, output, registry
from pipeline.errors import fields_under
from pipeline.output import JobRecord
from pipeline.reporting.progress import Progress
from pipeline.reporting.report import render
from pipeline.reporting.summary import Summary, totalled, versions
from pipeline.reporting.totals import Totals
from pipeline.reranking import executors
from pipeline.reranking.config import RerankConfig
from pipeline.reranking.executors import Executor
from pipeline.reranking.reuse import check_previous, previous_scores
from pipeline.reranking.shard import Job
from pipeline.scoring import Scorer
from pipeline.tables.candidates import Plan, directory_of, plan_table
from pipeline.tables.input.listing import log_skipped
from pipeline.tables.outage import wait_out
from pipeline.tables.output.attempts import Quarantined, forget_attempts
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.output.lease import Lease, lease
from pipeline.tables.output.manifest import Manifest
from pipeline.tables.output.markers import DONE, FOLDERS, done_shards, names_done, run_files
from pipeline.tables.output.run import TREC_RUN, write_trec_run
from pipeline.tables.storage import absolute

_REPORT = "report.html"

RESULTS = (DONE, *FOLDERS)
"""The subdirectories that hold results; without any another job may have the directory."""


def run(config: RerankConfig, *, check_bytes: bool = False) -> Summary:
    """Rerank the whole table, or what an earlier start left of it.

    A finished job is not touched where its files are as it left them: its summary comes back. What is damaged
    is done again: seen by the files' lengths, or by all their bytes where check_bytes says so. Raises
    RayrankError for what a user can mend.
    """
    start = time.monotonic()
    directory, scorer, plan, record = plan_job(config)
    log_skipped(plan.skipped)
    if (finished := _finished(directory, check_bytes=check_bytes)) is not None:
        log.info("already finished", output=directory.url)
        return finished.model_copy(update={"finished_before": output.when_finished(directory)})
    with lease(directory, len(plan.shards), len(names_done(directory))) as held:
        output.withdraw_success(directory)
        totals = Totals()
        # An earlier driver may have ended just now. For run.trec all is read anyway.
        check_bytes = check_bytes or config.output.trec_run
        for report in done_shards(directory, record.identity, plan.shards, check_bytes=check_bytes):
            totals.add(report)
        done_before, pairs_before = len(totals.done), totals.counts.pairs
        log.info("planned", shards=len(plan.shards), done=done_before, pairs=record.pairs)
        quarantined = _work(config, scorer, plan, record, totals, held)
        wall_s = time.monotonic() - start
        summary = Summary(
            output=directory.url,
            model=config.scorer.model,
            model_fingerprint=scorer.fingerprint,
            config_fingerprint=config.fingerprint,
            shards=len(plan.shards),
            shards_done_before=done_before,
            top_k=config.output.top_k,
            files_skipped=len(plan.skipped),
            wall_s=round(wall_s, 2),
            pairs_per_s=round((totals.counts.pairs - pairs_before) / wall_s, 2),
            versions=versions(),
            quarantined=quarantined,
            **totalled(totals),
        )
        _finish(config, directory, plan, record, summary, totals)
    return summary


def _finished(directory: Directory, *, check_bytes: bool) -> Summary | None:
    """The summary of a job that is finished and whole; None where there is something to do."""
    if output.is_complete(directory) and output.is_intact(directory, check_bytes=check_bytes):
        return output.read_summary(directory, Summary)
    return None


def plan_job(config: RerankConfig) -> tuple[Directory, Scorer, Plan, JobRecord]:
    """All that is known before work begins. Raises RayrankError for what the job would refuse."""
    wait_out(config.max_outage_s)
    directory = _open(config)
    with fields_under("scorer"):
        scorer = Scorer(config.placed_scorer)
    plan = plan_table(config.input, config.output.keep_columns, config.shard_pairs)
    record = JobRecord(
        format_version=FORMAT_VERSION,
        command="rerank",
        config=config.determining_fields(),
        models={"scorer": scorer.fingerprint},
        files=plan.identities(),
        shards=len(plan.shards),
        pairs=sum(shard.pairs for shard in plan.shards),
    )
    output.check_output(directory, record, RESULTS, resumes=True)
    if config.reuse and not output.is_complete(directory):
        check_previous(config.reuse, record)
    return directory, scorer, plan, record


def _open(config: RerankConfig) -> Directory:
    table = directory_of(config.input)
    return output.open_directory(config.output.path, [] if table is None else [table])


def _work(
    config: RerankConfig, scorer: Scorer, plan: Plan, record: JobRecord, totals: Totals, held: Lease
) -> list[Quarantined]:
    """Work on the shards that `totals` has not, and add them to it. Gives those that were given up."""
    directory = Directory(config.output.path)
    shards = [shard for shard in plan.shards if shard.name not in totals.done]
    executor = cast("Executor", registry.load(executors, config.executor))
    actors = executor.connect(config.actors, shards) if shards else 0
    output.write_record(directory, record)
    if not shards:
        return []
    previous = previous_scores(config.reuse, record) if config.reuse else None
    known = None if previous is None else lambda: previous
    job = Job(_for_workers(config, scorer), plan, record.identity, known)
    progress = Progress(len(shards), sum(shard.pairs for shard in shards), actors)
    quarantined = []
    try:
        for outcome in executor.work(job, shards):
            progress.add(outcome)
            if isinstance(outcome, Quarantined):
                quarantined.append(outcome)
                log.warning("shard given up", shard=outcome.name, stage=outcome.stage)
            else:
                totals.add(outcome)
                held.add(outcome.counts.pairs)
    finally:
        progress.close()
    return quarantined


def _finish(
    config: RerankConfig,
    directory: Directory,
    plan: Plan,
    record: JobRecord,
    summary: Summary,
    totals: Totals,
) -> None:
    """Check that all is there, and write what stands beside the shards; _SUCCESS where none is missing."""
    output.check_not_removed(directory)
    missing = {shard.name for shard in summary.quarantined}
    written = [shard.name for shard in plan.shards if shard.name not in missing]
    output.check_written(directory, written, names_done(directory), "shards")
    files = {}
    if config.output.trec_run:
        files[TREC_RUN] = write_trec_run(directory, run_files(directory, record.identity, written))
    slowest = {report.name for report in totals.slowest}
    places = {shard.name: shard.places for shard in plan.shards if shard.name in slowest}
    settings = config.model_dump(mode="json", exclude_defaults=True)
    files[_REPORT] = directory.write(_REPORT, render(settings, summary, totals, places).encode())
    forget_attempts(directory)  # the next start, of another day or machine, may do better
    manifest = Manifest(job=record.identity, shards=record.shards, folders=totals.folders, files=files)
    output.finish(directory, summary, RESULTS, complete=not missing, manifest=manifest)


def _for_workers(config: RerankConfig, scorer: Scorer) -> RerankConfig:
    """The config as processes elsewhere must read it: paths absolute, the hub's branch pinned to a commit."""
    checkpoint, adapter, given = scorer.checkpoint, scorer.adapter, config.placed_scorer
    model = {
        "model": given.model if given.model.startswith("package:") else checkpoint.address,
        "revision": checkpoint.revision,
        "peft_path": adapter and adapter.address,
        "peft_revision": adapter and adapter.revision,
    }
    texts = {"queries": config.input.queries, "passages": config.input.passages}
    texts = {name: path and absolute(path) for name, path in texts.items()}
    return config.model_copy(
        update={
            "input": config.input.model_copy(update=texts),
            "output": config.output.model_copy(update={"path": Directory(config.output.path).url}),
            "scorer": given.model_copy(update=model),
        }
    )
