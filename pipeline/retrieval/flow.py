"""The first stage: plan, refuse or resume, read, index, search, merge, finish."""

import time
from dataclasses import replace

from pipeline import log, output
from pipeline.output import JobRecord
from pipeline.retrieval.config import RetrieveConfig
from pipeline.retrieval.dtypes import settled
from pipeline.retrieval.merging import trec_lines
from pipeline.retrieval.plan import Job, plan, record_of
from pipeline.retrieval.reuse import check_previous
from pipeline.retrieval.shards import WORK, read_table
from pipeline.retrieval.stages import Stages
from pipeline.retrieval.summary import Summary
from pipeline.tables.input.listing import log_skipped
from pipeline.tables.outage import wait_out
from pipeline.tables.output.attempts import forget_attempts
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.manifest import Manifest, volumes
from pipeline.tables.output.sealed import Stamp
from pipeline.tables.output.tasks import MARKERS

_SHOWN = ("candidates", "unmatched", "rejects")
_RESULTS = (*_SHOWN, "embeddings", WORK, MARKERS)
"""The subdirectories that hold results; without any another job may have the directory."""
_TREC_RUN = "run.trec"


def run(config: RetrieveConfig, *, check_bytes: bool = False) -> Summary:
    """Find the candidates of all queries, or what an earlier start left of them.

    A finished job is not touched where its files are as it left them: its summary comes back. What is damaged
    is made again.

    check_bytes: read all files to see that; else their lengths are compared. Raises RayrankError for what a
    user can mend.
    """
    start = time.monotonic()
    directory, job, record = _plan(config)
    for source in (job.passages, job.queries):
        log_skipped(source.skipped, of=source.field)
    if (finished := _finished(directory, check_bytes=check_bytes)) is not None:
        directory.remove(WORK)  # of a start that was killed after its last word
        log.info("already finished", output=directory.url)
        return finished
    done = sum(name.startswith("merge-") for name in directory.names(MARKERS))
    with output.held(directory, record, _RESULTS, done) as held:
        if (
            finished := _finished(directory, check_bytes=check_bytes)
        ) is not None:  # by another start, just now
            return finished
        output.withdraw_success(directory)
        output.write_record(directory, record)
        stages = Stages(job, held, check_bytes=check_bytes)
        results = stages.run()
        summary = Summary(output=directory.url, **results, wall_s=round(time.monotonic() - start, 2))
        forget_attempts(directory)  # the next start, of another day or machine, may do better
        files = dict(stages.files)
        if config.output.trec_run:
            parts = sorted(name for name in files if name.startswith("candidates/"))
            files[_TREC_RUN] = _write_trec_run(directory, parts)
        folders = {*_SHOWN, *(name.rpartition("/")[0] for name in files)} - {""}
        manifest = Manifest(folders=volumes(files, sorted(folders)), files=files)
        output.finish(directory, summary, _SHOWN, complete=True, manifest=manifest)
        directory.remove(WORK)
    return summary


def describe(config: RetrieveConfig) -> str:
    """What `run` would do, as text; starts no Ray. Raises RayrankError for what it would refuse."""
    directory, job, _ = _plan(config, may_ask=config.executor == "here")
    done = _finished(directory, check_bytes=False) is not None
    lines = [f"{source.field:<10} {source.described()}" for source in (job.passages, job.queries)]
    lines.append(f"{'sources':<10} {', '.join(config.sources)}")
    lines.append(f"{'output':<10} {directory.url}{', finished' if done else ''}")
    for source in (job.passages, job.queries):
        lines += [f"{'skipped':<10} {file}: {why}" for file, why in source.skipped.items()]
    return "\n".join(lines)


def _plan(config: RetrieveConfig, *, may_ask: bool = True) -> tuple[Directory, Job, JobRecord]:
    """may_ask: as in `dtypes.settled`."""
    wait_out(config.max_outage_s)
    directory = output.open_directory(config.output.path, [config.passages.path, config.queries.path])
    job = settled(plan(config), output.recorded_dtypes(directory, "retrieve", _RESULTS), may_ask=may_ask)
    record = record_of(job)
    output.check_output(directory, record, _RESULTS, resumes=True)
    if config.reuse and not output.is_complete(directory):
        check_previous(config.reuse, record)
    return directory, replace(job, identity=record.identity), record


def _finished(directory: Directory, *, check_bytes: bool) -> Summary | None:
    """The summary of a finished output, whole; None where there is something to do."""
    if not output.is_complete(directory) or not output.is_intact(directory, check_bytes=check_bytes):
        return None
    summary = output.read_summary(directory, Summary)
    if summary is None:
        return None
    return summary.model_copy(update={"finished_before": output.when_finished(directory)})


def _write_trec_run(directory: Directory, parts: list[str]) -> Stamp:
    with directory.writing(_TREC_RUN) as stream:
        for part in parts:
            for line in trec_lines(read_table(directory, part)):
                stream.write(line.encode())
    return stream.stamp
