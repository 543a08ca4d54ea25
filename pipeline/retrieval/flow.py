"""The first stage: plan, refuse or resume, read, index, search, merge, finish."""

import time
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain

from pipeline import output
from pipeline.begun_versions import with_begun_versions
from pipeline.errors import ConfigError
from pipeline.job_record import recorded_dtypes
from pipeline.output import Start
from pipeline.retrieval.config import RetrieveConfig
from pipeline.retrieval.dtypes import settled
from pipeline.retrieval.merging import trec_lines, trec_lines_of
from pipeline.retrieval.plan import Job, plan, record_of
from pipeline.retrieval.reuse import with_previous
from pipeline.retrieval.shards import WORK, read_table
from pipeline.retrieval.stages import Stages
from pipeline.retrieval.summary import Summary
from pipeline.run_date import late_tables
from pipeline.scoring.truncation import Lengths
from pipeline.tables.input.listing import log_skipped
from pipeline.tables.outage import wait_out
from pipeline.tables.output.attempts import forget_attempts
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.done_marker import names_done
from pipeline.tables.output.lease import Lease
from pipeline.tables.output.manifest import Manifest, volumes
from pipeline.tables.output.run import TREC_RUN
from pipeline.tables.output.sealed import Stamp
from pipeline.tables.output.tasks import TaskReport
from pipeline.tables.table_files import places

_SHOWN = ("candidates", "unmatched", "rejects")
_RESULTS = ("candidates", "unmatched", "embeddings", WORK, TaskReport.FOLDER)
"""The subdirectories that hold results; without any another job may have the directory. Rejects alone are
none: they say how to mend a table, of which the mended one makes another job."""


def run(config: RetrieveConfig, *, check_bytes: bool = False) -> Summary:
    """Find the candidates of all queries, or what an earlier start left of them.

    A finished job is not touched where its files are as it left them: its summary comes back. What is damaged
    is made again.

    check_bytes: read all files to see that; else their lengths are compared. Raises RayrankError for what a
    user can mend.
    """
    begun = time.monotonic()
    start, job = _plan(config)
    for source in (job.passages, job.queries):
        log_skipped(source.skipped, of=source.field)

    def work(held: Lease, _finished: Summary | None) -> Summary:
        # Of a finished one that is mended nobody has looked for it yet.
        looks = job.config.reuse is not None and not job.reused
        stages = Stages(with_previous(job, start.record) if looks else job, held, check_bytes=check_bytes)
        results = stages.run()
        for source, counts in results["dense"].items():
            if counts["passages_cut"] or counts["queries_cut"]:
                counts["lengths"] = _lengths(job, source)
        wall_s = round(time.monotonic() - begun, 2)
        return _finish(job, stages, Summary(output=start.output.url, **results, wall_s=wall_s))

    def done() -> int:
        return sum(name.startswith("merge-") for name in names_done(start.output, TaskReport))

    summary = start.run(work, done, check_bytes=check_bytes)
    if summary.finished_before is not None:
        start.output.remove(WORK)  # of a start that was killed after its last word
    return summary


def _finish(job: Job, stages: Stages, summary: Summary) -> Summary:
    """Write what stands beside the tasks' files."""
    directory, files = job.output, dict(stages.files)
    forget_attempts(directory)  # the next start, of another day or machine, may do better
    if job.config.output.trec_run:
        files |= _write_trec_runs(job, stages)
    folders = {*_SHOWN, *(name.rpartition("/")[0] for name in files)} - {""}
    manifest = Manifest(folders=volumes(files, sorted(folders)), files=files)
    output.finish(directory, summary, _SHOWN, complete=True, manifest=manifest)
    directory.remove(WORK)
    return summary


def describe(config: RetrieveConfig, how_fast: str | None = None) -> str:
    """What `run` would do, as text; starts no Ray. Raises RayrankError for what it would refuse.

    how_fast: as `estimate` takes it.
    """
    if how_fast is not None and not config.dense:
        raise ConfigError(f"--speed {how_fast}: tells how fast texts are embedded, and no source is dense")
    start, job = _plan(config, may_ask=config.executor == "here")
    done = start.finished() is not None
    lines = [f"{source.field:<10} {source.described()}" for source in (job.passages, job.queries)]
    lines.append(f"{'sources':<10} {', '.join(config.sources)}")
    if config.dense and not done:
        from pipeline.retrieval.estimate import estimate  # noqa: PLC0415  (torch comes with it)

        lines += estimate(job, how_fast)
    lines.append(f"{'output':<10} {start.output.url}{', finished' if done else ''}")
    if config.reuse and not done:
        lines.append(f"{'reuse':<10} {job.config.reuse or f'none: nothing to take lies at {config.reuse}'}")
    for source in (job.passages, job.queries):
        lines += [f"{'skipped':<10} {file}: {why}" for file, why in source.skipped.items()]
    return "\n".join(lines)


def _lengths(job: Job, source: str) -> Lengths:
    from pipeline.retrieval.scorers import lengths_of  # noqa: PLC0415  (torch comes with it)

    return lengths_of(source, job.config.dense[source].scorer)


def _plan(config: RetrieveConfig, *, may_ask: bool = True) -> tuple[Start[Summary], Job]:
    """may_ask: as in `dtypes.settled`."""
    wait_out(config.max_outage_s)
    with late_tables(config.run_date):
        directory = output.open_directory(config.output.path, places([config.passages, config.queries]))
        with with_begun_versions(config, directory, "retrieve", _RESULTS) as versioned:
            job = plan(versioned)
    job = settled(job, recorded_dtypes(directory, "retrieve", _RESULTS), may_ask=may_ask)
    record = record_of(job)
    output.check_output(directory, record, _RESULTS, resumes=True)
    if config.reuse and not output.is_complete(directory):
        job = with_previous(job, record)
    return Start(directory, record, _RESULTS, Summary), replace(job, identity=record.identity)


def _write_trec_runs(job: Job, stages: Stages) -> dict[str, Stamp]:
    """Of the table, and of several sources of each alone."""
    parts = sorted(name for name in stages.files if name.startswith("candidates/"))
    of_table = (trec_lines(read_table(job.output, part)) for part in parts)
    written = {TREC_RUN: _write_lines(job.output, TREC_RUN, of_table)}
    for source in job.config.sources if len(job.config.sources) > 1 else ():
        name = f"run.{source}.trec"
        of_source = (trec_lines_of(job, source, block, stages.groups) for block in stages.blocks)
        written[name] = _write_lines(job.output, name, of_source)
    return written


def _write_lines(directory: Directory, name: str, parts: Iterable[Iterable[str]]) -> Stamp:
    with directory.writing(name) as stream:
        for line in chain.from_iterable(parts):
            stream.write(line.encode())
    return stream.stamp
