"""The first stage: plan, refuse or resume, read, index, search, merge, finish."""

import time

from pipeline import log, output
from pipeline.output import JobRecord
from pipeline.retrieval.config import RetrieveConfig
from pipeline.retrieval.merging import trec_lines
from pipeline.retrieval.plan import Job, plan, record_of
from pipeline.retrieval.reuse import check_previous
from pipeline.retrieval.shards import WORK, read_table
from pipeline.retrieval.stages import Stages
from pipeline.retrieval.steps import MARKERS
from pipeline.retrieval.summary import Summary
from pipeline.tables.input.listing import log_skipped
from pipeline.tables.output.attempts import forget_attempts
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.lease import lease

RESULTS = ("candidates", "unmatched", "rejects", "embeddings", WORK, MARKERS)
"""The subdirectories that hold results; without any another job may have the directory."""


def run(config: RetrieveConfig) -> Summary:
    """Find the candidates of all queries, or what an earlier start left of them.

    A finished job is not touched: its summary comes back. Raises RayrankError for what a user can mend.
    """
    start = time.monotonic()
    directory, job, record = _plan(config)
    for source in (job.passages, job.queries):
        log_skipped(source.skipped, of=source.field)
    if (finished := _finished(directory)) is not None:
        log.info("already finished", output=directory.url)
        return finished
    done = sum(name.startswith("merge-") for name in directory.names(MARKERS))
    with lease(directory, record.shards, done) as held:
        output.write_record(directory, record)
        results = Stages(job, held).run()
        summary = Summary(output=directory.url, **results, wall_s=round(time.monotonic() - start, 2))
        forget_attempts(directory)  # the next start, of another day or machine, may do better
        parts = sorted(directory.names("candidates"))
        if config.output.trec_run:
            _write_trec_run(directory, parts)
        output.finish(directory, summary, ("candidates", "unmatched", "rejects"), complete=True)
        directory.remove(WORK)
    return summary


def describe(config: RetrieveConfig) -> str:
    """What `run` would do, as text; starts no Ray. Raises RayrankError for what it would refuse."""
    directory, job, _ = _plan(config)
    done = output.is_complete(directory)
    lines = [f"{source.field:<10} {source.described()}" for source in (job.passages, job.queries)]
    lines.append(f"{'sources':<10} {', '.join(config.sources)}")
    lines.append(f"{'output':<10} {directory.url}{', finished' if done else ''}")
    for source in (job.passages, job.queries):
        lines += [f"{'skipped':<10} {file}: {why}" for file, why in source.skipped.items()]
    return "\n".join(lines)


def _plan(config: RetrieveConfig) -> tuple[Directory, Job, JobRecord]:
    directory = output.open_directory(config.output.path, [config.passages.path, config.queries.path])
    job = plan(config)
    record = record_of(job)
    output.check_output(directory, record, RESULTS, resumes=True)
    if config.reuse and not output.is_complete(directory):
        check_previous(config.reuse, record)
    return directory, job, record


def _finished(directory: Directory) -> Summary | None:
    summary = output.read_summary(directory, Summary) if output.is_complete(directory) else None
    if summary is None:
        return None
    directory.remove(WORK)  # of a start that was killed after its last word
    return summary.model_copy(update={"finished_before": output.when_finished(directory)})


def _write_trec_run(directory: Directory, parts: list[str]) -> None:
    with directory.writing("run.trec") as stream:
        for part in parts:
            for line in trec_lines(read_table(directory, f"candidates/{part}")):
                stream.write(line.encode())
