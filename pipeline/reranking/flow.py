"""The offline job: plan, refuse or resume, work on the shards that are not done, finish.

A shard's data is written first, its marker last; a start takes only the shards that have no marker.
"""

import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from pipeline import log, output, registry
from pipeline.begun_versions import with_begun_versions
from pipeline.job_record import (
    JobRecord,
    begun_job,
    check_not_removed,
    known_versions,
    recorded_dtypes,
)
from pipeline.output import Start
from pipeline.reporting.judged import Judge, ReadJudge
from pipeline.reporting.progress import Progress
from pipeline.reporting.report import render
from pipeline.reporting.summary import LevelSummary, Summary, totalled, versions
from pipeline.reporting.totals import Totals
from pipeline.reranking import executors, judging
from pipeline.reranking.calibration import calibrated
from pipeline.reranking.cascade import Level, named
from pipeline.reranking.config import RerankConfig
from pipeline.reranking.cost import paid
from pipeline.reranking.dtypes import settled
from pipeline.reranking.executors import Executor
from pipeline.reranking.movers import moved_queries
from pipeline.reranking.planning import plan_candidates
from pipeline.reranking.reuse import check_previous, with_previous, with_previous_date
from pipeline.reranking.shard import Job
from pipeline.run_date import late_tables
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.family import recorded_truncation
from pipeline.scoring.lean_imports import lean_imports
from pipeline.tables.candidates import Plan
from pipeline.tables.input.listing import but_markers, log_skipped
from pipeline.tables.outage import wait_out
from pipeline.tables.output.attempts import Quarantined, forget_attempts
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.done_marker import names_done
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.output.lease import Lease
from pipeline.tables.output.manifest import Manifest
from pipeline.tables.output.markers import FOLDERS, LevelCounts, ShardReport, done_shards, run_files
from pipeline.tables.output.run import TREC_RUN, write_trec_run
from pipeline.tables.output.statistics import Distribution
from pipeline.tables.table_files import places

_REPORT = "report.html"

RESULTS = (ShardReport.FOLDER, *FOLDERS)
"""The subdirectories that hold results; without any another job may have the directory."""


class Planned(NamedTuple):
    """All that is known before work begins."""

    config: RerankConfig
    """With a dtype in place of `auto`."""
    directory: Directory
    scorers: list[Scorer]
    """One a level."""
    plan: Plan
    record: JobRecord
    auto: frozenset[int]
    """The levels whose dtype was `auto`."""
    judge: Judge | None
    """The judgments, where the config names any."""
    reuse: str | None
    """As the config was given; `config` has the run that was found there, or none."""


def run(config: RerankConfig, *, check_bytes: bool = False, read_judge: ReadJudge | None = None) -> Summary:
    """Rerank the whole table, or what an earlier start left of it.

    A finished job is not touched where its files are as it left them: its summary comes back. What is damaged
    is done again: seen by the files' lengths, or by all their bytes where check_bytes says so. Raises
    RayrankError for what a user can mend.

    read_judge: what reads `config.qrels`. A finished job without the measures by them gets these alone.
    """
    begun = time.monotonic()
    planned = plan_job(config, read_judge)
    directory = planned.directory
    log_skipped(planned.plan.skipped)

    def work(held: Lease, finished: Summary | None) -> Summary:
        return _rerank(planned, held, finished, begun, check_bytes=check_bytes)

    return Start(directory, planned.record, RESULTS, Summary).run(
        work,
        lambda: len(names_done(directory, ShardReport)),
        check_bytes=check_bytes,
        lacks=lambda finished: not judging.is_judged(finished, planned.judge),
    )


def _rerank(
    planned: Planned, held: Lease, finished: Summary | None, begun: float, *, check_bytes: bool
) -> Summary:
    """What is left of the job, for which this start has the output alone.

    finished: of a job that lacks nothing but its measures.
    """
    plan, record = planned.plan, planned.record
    totals = Totals()
    # An earlier driver may have ended just now. For run.trec all is read anyway.
    check_bytes = check_bytes or planned.config.output.trec_run
    for report in done_shards(planned.directory, record.identity, plan.shards, check_bytes=check_bytes):
        totals.add(report)
    done_before, pairs_before = len(totals.done), totals.counts.pairs
    log.info("planned", shards=len(plan.shards), done=done_before, pairs=record.pairs)
    held.begins_with(done_before)
    quarantined = _work(planned, totals, held)
    if finished is not None and done_before == len(plan.shards):
        return _finish(planned, finished, totals)
    wall_s = time.monotonic() - begun
    this_start = {
        "shards_done_before": done_before,
        "pairs_done_before": pairs_before,
        "wall_s": round(wall_s, 2),
        "pairs_per_s": round((totals.counts.pairs - pairs_before) / wall_s, 2),
        "quarantined": quarantined,
    }
    return _finish(planned, _summary(planned, totals, this_start), totals)


def _summary(planned: Planned, totals: Totals, this_start: dict[str, Any]) -> Summary:
    """this_start: the fields that are of this start alone."""
    config, scorers = planned.config, planned.scorers
    return Summary(
        output=planned.directory.url,
        model=" > ".join(level.scorer.model for level in config.cascade),
        dtype=" > ".join(level.scorer.dtype for level in config.cascade),
        model_fingerprint=" > ".join(scorer.fingerprint for scorer in scorers),
        lengths=scorers[0].lengths if config.levels is None and totals.counts.truncated else None,
        embeds=config.levels is None and scorers[0].embeds,
        config_fingerprint=config.fingerprint,
        shards=len(planned.plan.shards),
        top_k=config.depth,
        files_skipped=len(but_markers(planned.plan.skipped)),
        reuse=planned.reuse,
        previous_run=config.reuse,
        versions=versions(),
        **this_start,
        **totalled(totals),
        **paid(config.cascade, totals.counts),
        levels=_level_summaries(config, scorers, totals),
        fused={level.name: level.fuse.told(level.fused_names) for level in config.cascade if level.fuse},
    )


def plan_job(
    config: RerankConfig,
    read_judge: ReadJudge | None = None,
    *,
    may_ask: bool = True,
    calibrates: bool = True,
) -> Planned:
    """Raises RayrankError for what the job would refuse.

    read_judge: as `run` takes it.
    may_ask: whether the actors' machines may be asked what `dtype: auto` is there; else it may stay `auto`.
    calibrates: make the calibrated models that are not there yet.
    """
    wait_out(config.max_outage_s)
    with late_tables(config.run_date):
        directory = output.open_directory(config.output.path, places([config.input]))
        # Models and tables first: no machine is waited for where these are wrong.
        scorers = [_scorer(level, level.scorer) for level in config.cascade]
        config = config.with_scorers([scorer.config for scorer in scorers])  # with their own truncation
        judge = judging.read(config, read_judge)
        with with_begun_versions(config, directory, "rerank", RESULTS) as versioned:
            config = versioned
            plan = plan_candidates(config, judge)
    auto = frozenset(level.number for level in config.cascade if level.scorer.dtype == "auto")
    if auto:
        config = settled(config, scorers, recorded_dtypes(directory, "rerank", RESULTS), may_ask=may_ask)
    for level in config.cascade:
        if level.scorer.quantization is not None:
            scorers[level.number] = _scorer(level, calibrated(level, config, plan, makes=calibrates))
    begun, reuse = begun_job(directory, "rerank", RESULTS), config.reuse
    config = with_previous_date(config, _record(config, scorers, plan), begun)
    record = _record(config, scorers, plan)
    output.check_output(directory, record, RESULTS, resumes=True)
    if config.reuse and not output.is_complete(directory):
        check_previous(config.reuse, record)
    return Planned(config, directory, scorers, plan, record, auto, judge, reuse)


def _record(config: RerankConfig, scorers: Sequence[Scorer], plan: Plan) -> JobRecord:
    by_field = {f"{level.under}scorer": scorers[level.number] for level in config.cascade}
    cuts = {
        f"{field}.truncation": recorded_truncation(scorer.family, scorer.checkpoint, scorer.config)
        for field, scorer in by_field.items()
    }
    return JobRecord(
        format_version=FORMAT_VERSION,
        command="rerank",
        config=config.determining_fields() | cuts,
        models={field: scorer.fingerprint for field, scorer in by_field.items()},
        files=plan.identities(),
        shards=len(plan.shards),
        pairs=sum(shard.pairs for shard in plan.shards),
        versions=known_versions({"input": plan.version}),
    )


def _scorer(level: Level, config: ScorerConfig) -> Scorer:
    with named(level), lean_imports():
        return Scorer(config)


def _work(planned: Planned, totals: Totals, held: Lease) -> list[Quarantined]:
    """Work on the shards that `totals` has not, and add them to it. Gives those that were given up."""
    config, plan, record = planned.config, planned.plan, planned.record
    shards = [shard for shard in plan.shards if shard.name not in totals.done]
    executor = cast("Executor", registry.load(executors, config.executor))
    actors = executor.connect([level.actors for level in config.cascade], shards) if shards else 0
    if not shards:
        return []
    job = Job(for_workers(config, planned.scorers), plan, record.identity, planned.auto)
    job = with_previous(job, record)
    progress = Progress({shard.name: shard.pairs for shard in shards}, actors, sys.stderr)
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


def _finish(planned: Planned, summary: Summary, totals: Totals) -> Summary:
    """Check that all is there, and write what stands beside the shards; _SUCCESS where none is missing.

    Gives the summary as it was written.
    """
    config, directory, plan, record = planned.config, planned.directory, planned.plan, planned.record
    check_not_removed(directory)
    missing = {shard.name for shard in summary.quarantined}
    written = [shard.name for shard in plan.shards if shard.name not in missing]
    output.check_written(directory, written, names_done(directory, ShardReport), "shards")
    if planned.judge is not None:
        found = judging.judged(planned.judge, config, directory, plan, record, written)
        summary = summary.model_copy(update={"judged": found})
    files = {}
    if config.output.trec_run:
        files[TREC_RUN] = write_trec_run(directory, run_files(directory, record.identity, written))
    slowest = {report.name for report in totals.slowest}
    places = {shard.name: shard.places for shard in plan.shards if shard.name in slowest}
    settings = config.model_dump(mode="json", exclude_defaults=True)
    moved = moved_queries(totals, plan, config)
    files[_REPORT] = directory.write(_REPORT, render(settings, summary, totals, places, moved).encode())
    forget_attempts(directory)  # the next start, of another day or machine, may do better
    manifest = Manifest(job=record.identity, shards=record.shards, folders=totals.folders, files=files)
    output.finish(directory, summary, RESULTS, complete=not missing, manifest=manifest)
    return summary


def for_workers(config: RerankConfig, scorers: Sequence[Scorer]) -> RerankConfig:
    """The config as processes elsewhere must read it: paths absolute, the hub's branch pinned to a commit."""
    positives = config.output.training_rows
    output = {
        "path": Directory(config.output.path).url,
        "training_rows": positives and positives.for_workers(),
    }
    return config.with_scorers([scorer.pinned_config for scorer in scorers]).model_copy(
        update={
            "input": config.input.for_workers(),
            "output": config.output.model_copy(update=output),
        }
    )


def _level_summaries(
    config: RerankConfig, scorers: Sequence[Scorer], totals: Totals
) -> tuple[LevelSummary, ...]:
    """Of a cascade; none of a job with one scorer."""
    if config.levels is None:
        return ()
    counts = totals.counts.levels or [LevelCounts()] * len(scorers)
    scores = totals.level_scores or [Distribution()] * len(scorers)
    return tuple(
        LevelSummary.of(scorer, level.keep, count, score)
        for level, scorer, count, score in zip(config.levels, scorers, counts, scores, strict=True)
    )
