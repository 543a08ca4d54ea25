"""The preparation: plan, refuse or begin afresh, read, join, order, write, finish."""

import time
from collections import Counter
from typing import Any, cast

from pipeline import log, output, registry
from pipeline.begun_versions import with_begun_versions
from pipeline.errors import OutputError
from pipeline.output import Start
from pipeline.preparation import executors
from pipeline.preparation.config import PrepareConfig
from pipeline.preparation.executors import Executor
from pipeline.preparation.plan import Preparation, partitions, plan, record_of
from pipeline.preparation.summary import Summary
from pipeline.preparation.tasks import PartReport, RowsRead, rows_read
from pipeline.run_date import late_tables
from pipeline.tables.input.listing import log_skipped
from pipeline.tables.outage import wait_out
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.lease import Lease
from pipeline.tables.output.manifest import Manifest, volumes
from pipeline.tables.table_files import places

_LOG_EVERY_S = 60.0
_SHOWN = ("candidates", "rejects")
_RESULTS = (*_SHOWN, "_manifest/read")
"""The subdirectories that hold results."""


def run(config: PrepareConfig, *, check_bytes: bool = False) -> Summary:
    """Make the table. A finished one is not touched where its files are as it left them: its summary comes
    back. An unfinished or damaged one starts afresh: `rerank` reads all of it, or none.

    check_bytes: read all files to see that; else their lengths are compared. Raises RayrankError for what a
    user can mend.
    """
    begun = time.monotonic()
    start, preparation = _plan(config)
    for source in preparation.sources:
        log_skipped(source.skipped, of=source.field)

    def work(held: Lease, _finished: Summary | None) -> Summary:
        _clear(start.output)
        log.info("planned", **preparation.sizes(config.executor))
        return _finish(start.output, _work(config, start.output, preparation, held), begun)

    return start.run(work, lambda: 0, check_bytes=check_bytes)


def _finish(directory: Directory, reports: list[PartReport], begun: float) -> Summary:
    """Check that all is there, and write what stands beside the parts."""
    wall_s = round(time.monotonic() - begun, 2)
    read = rows_read(directory)
    summary = Summary(output=directory.url, **_count(reports, read), wall_s=wall_s)
    files = [*(report.files for report in reports), *(each.files for each in read)]
    stamps = {file: stamp for each in files for file, stamp in each.items()}
    written = directory.names("candidates") | directory.names("rejects")
    named = {file.rpartition("/")[2] for file in stamps}
    output.check_written(directory, named, written, "files")
    manifest = Manifest(folders=volumes(stamps, _SHOWN), files=stamps)
    output.finish(directory, summary, _RESULTS, complete=True, manifest=manifest)
    return summary


def describe(config: PrepareConfig) -> str:
    """What `run` would do, as text; starts no Ray. Raises RayrankError for what it would refuse."""
    start, preparation = _plan(config)
    done = start.finished() is not None
    lines = [f"{source.field:<10} {source.described()}" for source in preparation.sources]
    lines += [f"{name:<10} {value}" for name, value in preparation.sizes(config.executor).items()]
    lines.append(f"{'output':<10} {start.output.url}{', finished' if done else ''}")
    for source in preparation.sources:
        lines += [f"{'skipped':<10} {file}: {why}" for file, why in source.skipped.items()]
    return "\n".join(lines)


def _plan(config: PrepareConfig) -> tuple[Start[Summary], Preparation]:
    """An unfinished output, of any input, is free to be made afresh: nothing of it would be used."""
    wait_out(config.max_outage_s)
    tables = (config.candidates, config.queries, config.passages)
    with late_tables(config.run_date):
        directory = output.open_directory(config.output.path, places(table for table in tables if table))
        with with_begun_versions(config, directory, "prepare", _RESULTS, resumes=False) as versioned:
            preparation = plan(versioned)
    record = record_of(config, preparation)
    return Start(directory, record, _RESULTS, Summary, resumes=False), preparation


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


def _count(reports: list[PartReport], read: list[RowsRead]) -> dict[str, Any]:
    """Raises OutputError where a row was lost on the way."""
    rejected, texts, rows = Counter[str](), Counter[str](), Counter[str]()
    for report in reports:
        rejected.update(report.rejected)
    for each in read:
        rows[each.field] += each.rows
        texts.update(each.rejected)
    written = sum(report.written for report in reports)
    candidates = rows["candidates"]
    if candidates != written + rejected.total():
        raise OutputError(
            f"{candidates} candidates were read, but {written} written and {rejected.total()} rejected:"
            " a bug, or the output is no directory that all nodes share"
        )
    return {
        "candidates": candidates,
        "written": written,
        "queries": sum(report.queries for report in reports),
        "rejected": dict(sorted((rejected + texts).items())),
        "query_texts": rows["queries"],
        "passage_texts": rows["passages"],
        "rejected_texts": texts.total(),
        "files": sum(report.written > 0 for report in reports),
    }
