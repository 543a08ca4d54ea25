"""The preparation: plan, refuse or begin afresh, read, join, order, write, finish."""

import time
from collections import Counter
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field

from pipeline import log, output, registry
from pipeline.errors import OutputError
from pipeline.output import JobRecord
from pipeline.preparation import executors
from pipeline.preparation.config import PrepareConfig
from pipeline.preparation.executors import Executor
from pipeline.preparation.plan import Preparation, partitions, plan, record_of
from pipeline.preparation.tasks import PartReport, rows_read
from pipeline.tables.input.listing import log_skipped
from pipeline.tables.outage import wait_out
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.lease import Lease, lease
from pipeline.tables.output.manifest import Manifest, volumes
from pipeline.tables.schema import REASONS

_LOG_EVERY_S = 60.0
_SHOWN = ("candidates", "rejects")
_RESULTS = (*_SHOWN, "_manifest/read")
"""The subdirectories that hold results."""


class Summary(BaseModel):
    """What became of the candidates: `candidates` = `written` + all `rejected`."""

    model_config = ConfigDict(frozen=True)

    output: str
    candidates: int
    written: int
    queries: int
    rejected: dict[str, int]
    query_texts: int
    passage_texts: int
    """Rows of the tables of texts, used or not."""
    files: int
    wall_s: float
    finished_before: str | None = Field(default=None, exclude=True)
    """When an earlier start finished all, so that this one had nothing to do. Not in summary.json."""

    def as_text(self) -> str:
        lines = []
        if self.finished_before is not None:
            lines.append(f"Finished before, at {self.finished_before}; nothing was done now.")
        lines += [
            f"{self.written} of {self.candidates} candidates of {self.queries} queries written"
            f" in {self.wall_s:.1f} s: {self.files} files in {self.output}/candidates"
        ]
        if self.rejected:
            lines.append(f"{sum(self.rejected.values())} rows rejected, see {self.output}/rejects:")
            for reason, count in self.rejected.items():
                lines.append(f"  {count} {reason}: {REASONS[reason]}")
        return "\n".join(lines)


def run(config: PrepareConfig, *, check_bytes: bool = False) -> Summary:
    """Make the table. A finished one is not touched where its files are as it left them: its summary comes
    back. An unfinished or damaged one starts afresh: `rerank` reads all of it, or none.

    check_bytes: read all files to see that; else their lengths are compared. Raises RayrankError for what a
    user can mend.
    """
    start = time.monotonic()
    directory, preparation, record = _plan(config)
    for source in preparation.sources:
        log_skipped(source.skipped, of=source.field)
    if (finished := _finished(directory, record, check_bytes=check_bytes)) is not None:
        log.info("already finished", output=directory.url)
        return finished
    with lease(directory, record.shards, 0) as held:
        # By another start, just now.
        if (finished := _finished(directory, record, check_bytes=check_bytes)) is not None:
            return finished
        output.withdraw_success(directory)
        _clear(directory)
        output.write_record(directory, record)
        log.info("planned", **preparation.sizes())
        reports = _work(config, directory, preparation, held)
        summary = Summary(
            output=directory.url,
            **_count(reports, rows_read(directory)),
            wall_s=round(time.monotonic() - start, 2),
        )
        written = directory.names("candidates") | directory.names("rejects")
        output.check_written(directory, [f"{report.name}.parquet" for report in reports], written, "files")
        stamps = {file: stamp for report in reports for file, stamp in report.files.items()}
        manifest = Manifest(folders=volumes(stamps, _SHOWN), files=stamps)
        output.finish(directory, summary, _RESULTS, complete=True, manifest=manifest)
    return summary


def describe(config: PrepareConfig) -> str:
    """What `run` would do, as text; starts no Ray. Raises RayrankError for what it would refuse."""
    directory, preparation, record = _plan(config)
    done = _finished(directory, record, check_bytes=False) is not None
    lines = [f"{source.field:<10} {source.described()}" for source in preparation.sources]
    lines += [f"{name:<10} {value}" for name, value in preparation.sizes().items()]
    lines.append(f"{'output':<10} {directory.url}{', finished' if done else ''}")
    for source in preparation.sources:
        lines += [f"{'skipped':<10} {file}: {why}" for file, why in source.skipped.items()]
    return "\n".join(lines)


def _plan(config: PrepareConfig) -> tuple[Directory, Preparation, JobRecord]:
    wait_out(config.max_outage_s)
    sources = (config.candidates, config.queries, config.passages)
    directory = output.open_directory(config.output.path, [source.path for source in sources if source])
    preparation = plan(config)
    return directory, preparation, record_of(config, preparation)


def _finished(directory: Directory, record: JobRecord, *, check_bytes: bool) -> Summary | None:
    """The summary of this very table, whole; None where it has still to be made.

    An unfinished one, of any input, is free to be made afresh: nothing of it would be used. Raises
    OutputError where the directory holds something else.
    """
    if output.check_output(directory, record, _RESULTS, resumes=False) is None:
        return None
    if not output.is_intact(directory, check_bytes=check_bytes):
        return None
    summary = output.read_summary(directory, Summary)
    if summary is None:
        return None
    return summary.model_copy(update={"finished_before": output.when_finished(directory)})


def _clear(directory: Directory) -> None:
    """Take away what an unfinished start left."""
    for subdirectory in _RESULTS:
        if directory.names(subdirectory):
            log.info("starting afresh", removed=f"{directory.url}/{subdirectory}")
            directory.remove(subdirectory)


def _work(
    config: PrepareConfig, directory: Directory, preparation: Preparation, held: Lease
) -> list[PartReport]:
    """What became of each part, told now and then on the way."""
    executor = cast("Executor", registry.load(executors, config.executor))
    executor.connect(preparation)
    logged, reports = time.monotonic(), []
    for report in executor.work(directory.url, preparation):
        reports.append(report)
        held.add(report.written)
        if (now := time.monotonic()) - logged >= _LOG_EVERY_S:
            written = sum(report.written for report in reports)
            log.info(
                "written",
                files=f"{len(reports)}/{partitions(preparation.by_query_bytes)}",
                candidates=written,
            )
            logged = now
    return reports


def _count(reports: list[PartReport], read: dict[str, int]) -> dict[str, Any]:
    """Raises OutputError where a row was lost on the way."""
    rejected: Counter[str] = Counter()
    for report in reports:
        rejected.update(report.rejected)
    written = sum(report.written for report in reports)
    candidates = read.get("candidates", 0)
    if candidates != written + rejected.total():
        raise OutputError(
            f"{candidates} candidates were read, but {written} written and {rejected.total()} rejected:"
            " a bug, or the output is no directory that all nodes share"
        )
    return {
        "candidates": candidates,
        "written": written,
        "queries": sum(report.queries for report in reports),
        "rejected": dict(sorted(rejected.items())),
        "query_texts": read.get("queries", 0),
        "passage_texts": read.get("passages", 0),
        "files": sum(report.written > 0 for report in reports),
    }
