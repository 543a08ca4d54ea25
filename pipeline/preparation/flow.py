"""The preparation on Ray Data: read -> shuffle by passage, join -> shuffle by query, join, order, write.

Candidates and texts travel in one dataset, so that a shuffle brings both sides of a join into one block. The
shuffles are Ray Data's own: what moves lies in the object store, which spills to disk what it can't hold.
"""

import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict
from ray.data import DataContext

from pipeline import log, output
from pipeline.cluster import join, own_error
from pipeline.errors import ConfigError, OutputError
from pipeline.output import JobRecord
from pipeline.preparation.config import PrepareConfig
from pipeline.preparation.plan import BATCH_BYTES, Preparation, partitions, plan, record_of
from pipeline.preparation.tasks import PartReport, join_passages, read_file_range, rows_read, write_part
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.lease import lease
from pipeline.tables.schema import REASONS

_LOG_EVERY_S = 60.0
_RESULTS = ("candidates", "rejects", "_manifest/read")
"""The subdirectories that hold results."""
_NO_PROGRESS_S = 7200
"""Ray ends what makes none for so long: a shuffle hands nothing on until it has read everything."""


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

    def as_text(self) -> str:
        lines = [
            f"{self.written} of {self.candidates} candidates of {self.queries} queries written"
            f" in {self.wall_s:.1f} s: {self.files} files in {self.output}/candidates"
        ]
        if self.rejected:
            lines.append(f"{sum(self.rejected.values())} rows rejected, see {self.output}/rejects:")
            for reason, count in self.rejected.items():
                lines.append(f"  {count} {reason}: {REASONS[reason]}")
        return "\n".join(lines)


def run(config: PrepareConfig) -> Summary:
    """Make the table. A finished one is not touched: its summary comes back; an unfinished one starts afresh.

    Raises RayrankError for what a user can mend.
    """
    start = time.monotonic()
    directory, preparation, record = _plan(config)
    for source in preparation.sources:
        if source.skipped:
            file, reason = next(iter(source.skipped.items()))
            log.warning(
                "files left out", of=source.field, files=len(source.skipped), first=file, reason=reason
            )
    if (finished := _finished(directory, record)) is not None:
        log.info("already finished", output=directory.url)
        return finished
    with lease(directory, record.shards, 0) as held:
        if (finished := _finished(directory, record)) is not None:  # by another start, just now
            return finished
        _clear(directory)
        output.write_record(directory, record)
        log.info("planned", **preparation.sizes())
        join(_NO_PROGRESS_S)
        _check_memory(preparation)
        reports = []
        for report in _reports(directory.url, preparation):
            reports.append(report)
            held.add(report.written)
        summary = Summary(
            output=directory.url,
            **_count(reports, rows_read(directory)),
            wall_s=round(time.monotonic() - start, 2),
        )
        written = directory.names("candidates") | directory.names("rejects")
        output.check_written(directory, [f"{report.name}.parquet" for report in reports], written, "files")
        output.finish(directory, summary, _RESULTS, complete=True)
    return summary


def describe(config: PrepareConfig) -> str:
    """What `run` would do, as text; starts no Ray. Raises RayrankError for what it would refuse."""
    directory, preparation, record = _plan(config)
    done = _finished(directory, record) is not None
    lines = [f"{source.field:<10} {source.described()}" for source in preparation.sources]
    lines += [f"{name:<10} {value}" for name, value in preparation.sizes().items()]
    lines.append(f"{'output':<10} {directory.url}{', finished' if done else ''}")
    for source in preparation.sources:
        lines += [f"{'skipped':<10} {file}: {why}" for file, why in source.skipped.items()]
    return "\n".join(lines)


def _plan(config: PrepareConfig) -> tuple[Directory, Preparation, JobRecord]:
    sources = (config.candidates, config.queries, config.passages)
    directory = output.open_directory(config.output.path, [source.path for source in sources if source])
    preparation = plan(config)
    return directory, preparation, record_of(config, preparation)


def _finished(directory: Directory, record: JobRecord) -> Summary | None:
    """The summary of this very table, whole; None where it has still to be made.

    An unfinished one, of any input, is free to be made afresh: nothing of it would be used. Raises
    OutputError where the directory holds something else.
    """
    if output.check_output(directory, record, _RESULTS, resumes=False) is None:
        return None
    written = output.read_summary(directory)
    return None if written is None else Summary.model_validate_json(written)


def _clear(directory: Directory) -> None:
    """Take away what an unfinished start left."""
    for subdirectory in _RESULTS:
        if directory.names(subdirectory):
            log.info("starting afresh", removed=f"{directory.url}/{subdirectory}")
            directory.remove(subdirectory)


def _check_memory(preparation: Preparation) -> None:
    """Refuse what would wait for ever: Ray gives a task no less than the memory it asks for."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's own
    largest = max(node["Resources"].get("memory", 0) for node in nodes if node["Alive"])
    if preparation.task_bytes > largest:
        raise ConfigError(
            f"a task of this shuffle needs {preparation.task_bytes / 2**20:.0f} MiB of memory, and"
            f" Ray's largest node here gives {largest / 2**20:.0f} MiB; take larger nodes"
        )


def _reports(output: str, preparation: Preparation) -> Iterator[PartReport]:
    context = DataContext.get_current()
    context.shuffle_input_batch_bytes = BATCH_BYTES
    logged, files, rows = time.monotonic(), 0, 0
    try:
        for row in _dataset(Directory(output).url, preparation).iter_rows():
            report = PartReport.model_validate_json(row["report"])
            files, rows = files + 1, rows + report.written
            if (now := time.monotonic()) - logged >= _LOG_EVERY_S:
                log.info(
                    "written", files=f"{files}/{partitions(preparation.by_query_bytes)}", candidates=rows
                )
                logged = now
            yield report
    except Exception as error:
        if (ours := own_error(error)) is not None:
            raise ours from error
        raise


def _dataset(output: str, preparation: Preparation) -> ray.data.Dataset:
    """One row a file that was written."""
    if preparation.passages is None:
        rows = _read(output, preparation, ["candidates", "queries"])
    else:
        rows = _by_key(
            _read(output, preparation, ["candidates", "passages"]), preparation.by_passage_bytes
        ).map_batches(
            partial(join_passages, found=preparation.for_workers()), batch_size=None, batch_format="pyarrow"
        )
        if preparation.queries is not None:
            rows = rows.union(_read(output, preparation, ["queries"]))
    write = partial(write_part, output=output, found=preparation.for_workers())
    return _by_key(rows, preparation.by_query_bytes).map_batches(
        write, batch_size=None, batch_format="pyarrow"
    )


def _read(output: str, preparation: Preparation, fields: list[str]) -> ray.data.Dataset:
    file_ranges = [file_range for file_range in preparation.file_ranges() if file_range["field"] in fields]
    return ray.data.from_items(file_ranges, override_num_blocks=len(file_ranges)).map_batches(
        partial(read_file_range, output=output, found=preparation.for_workers()),
        batch_size=1,
        batch_format="pyarrow",
    )


def _by_key(rows: ray.data.Dataset, size_bytes: int) -> ray.data.Dataset:
    """Each partition is one block, which batch_size=None hands on whole (as Dataset.map_groups relies on)."""
    return rows.repartition(partitions(size_bytes), keys=["key"])


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
