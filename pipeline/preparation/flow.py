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

from pipeline import log
from pipeline.cluster import join, own_error
from pipeline.errors import ConfigError, OutputError
from pipeline.preparation.config import PrepareConfig
from pipeline.preparation.plan import (
    BATCH_BYTES,
    Preparation,
    is_finished,
    open_output,
    output_of,
    partitions,
    plan,
)
from pipeline.preparation.tasks import PartReport, join_passages, read_file_range, rows_read, write_part
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.lease import lease
from pipeline.tables.schema import REASONS

_LOG_EVERY_S = 60.0
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
    output = output_of(config)
    found = plan(config)
    for source in found.sources:
        if source.skipped:
            file, reason = next(iter(source.skipped.items()))
            log.warning(
                "files left out", of=source.field, files=len(source.skipped), first=file, reason=reason
            )
    if (finished := _finished(output, config, found)) is not None:
        log.info("already finished", output=output.url)
        return finished
    with lease(output, partitions(found.by_query_bytes), 0) as held:
        if (finished := _finished(output, config, found)) is not None:  # by another start, just now
            return finished
        _clear(output)
        open_output(output, config, found)
        log.info("planned", **found.sizes())
        join(_NO_PROGRESS_S)
        _check_memory(found)
        reports = []
        for report in _reports(config.output.path, found):
            reports.append(report)
            held.add(report.written)
        summary = Summary(
            output=output.url,
            **_count(reports, rows_read(output)),
            wall_s=round(time.monotonic() - start, 2),
        )
        _finish(output, summary, [report.name for report in reports])
    return summary


def describe(config: PrepareConfig) -> str:
    """What `run` would do, as text; starts no Ray. Raises RayrankError for what it would refuse."""
    output = output_of(config)
    found = plan(config)
    done = _finished(output, config, found) is not None
    lines = [f"{source.field:<10} {source.described()}" for source in found.sources]
    lines += [f"{name:<10} {value}" for name, value in found.sizes().items()]
    lines.append(f"{'output':<10} {output.url}{', finished' if done else ''}")
    for source in found.sources:
        lines += [f"{'skipped':<10} {file}: {why}" for file, why in source.skipped.items()]
    return "\n".join(lines)


def _finished(output: Directory, config: PrepareConfig, found: Preparation) -> Summary | None:
    written = output.read("summary.json") if is_finished(output, config, found) else None
    return None if written is None else Summary.model_validate_json(written)


def _clear(output: Directory) -> None:
    """Take away what an unfinished start left."""
    for subdirectory in ("candidates", "rejects", "_manifest/read"):
        if output.names(subdirectory):
            log.info("starting afresh", removed=f"{output.url}/{subdirectory}")
            output.remove(subdirectory)


def _check_memory(found: Preparation) -> None:
    """Refuse what would wait for ever: Ray gives a task no less than the memory it asks for."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's own
    largest = max(node["Resources"].get("memory", 0) for node in nodes if node["Alive"])
    if found.task_bytes > largest:
        raise ConfigError(
            f"a task of this shuffle needs {found.task_bytes / 2**20:.0f} MiB of memory, and Ray's largest"
            f" node here gives {largest / 2**20:.0f} MiB; take larger nodes"
        )


def _reports(output: str, found: Preparation) -> Iterator[PartReport]:
    context = DataContext.get_current()
    context.shuffle_input_batch_bytes = BATCH_BYTES
    logged, files, rows = time.monotonic(), 0, 0
    try:
        for row in _dataset(Directory(output).url, found).iter_rows():
            report = PartReport.model_validate_json(row["report"])
            files, rows = files + 1, rows + report.written
            if (now := time.monotonic()) - logged >= _LOG_EVERY_S:
                log.info("written", files=f"{files}/{partitions(found.by_query_bytes)}", candidates=rows)
                logged = now
            yield report
    except Exception as error:
        if (ours := own_error(error)) is not None:
            raise ours from error
        raise


def _dataset(output: str, found: Preparation) -> ray.data.Dataset:
    """One row a file that was written."""
    if found.passages is None:
        rows = _read(output, found, ["candidates", "queries"])
    else:
        rows = _by_key(_read(output, found, ["candidates", "passages"]), found.by_passage_bytes).map_batches(
            partial(join_passages, found=found.for_workers()), batch_size=None, batch_format="pyarrow"
        )
        if found.queries is not None:
            rows = rows.union(_read(output, found, ["queries"]))
    write = partial(write_part, output=output, found=found.for_workers())
    return _by_key(rows, found.by_query_bytes).map_batches(write, batch_size=None, batch_format="pyarrow")


def _read(output: str, found: Preparation, fields: list[str]) -> ray.data.Dataset:
    file_ranges = [file_range for file_range in found.file_ranges() if file_range["field"] in fields]
    return ray.data.from_items(file_ranges, override_num_blocks=len(file_ranges)).map_batches(
        partial(read_file_range, output=output, found=found.for_workers()),
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


def _finish(output: Directory, summary: Summary, names: list[str]) -> None:
    """_SUCCESS, once all that was reported is seen to be there."""
    there = output.names("candidates") | output.names("rejects")
    missing = sorted(name for name in names if f"{name}.parquet" not in there)
    if missing:
        raise OutputError(
            f"{output.url}: {len(missing)} files were written, but not here ({missing[0]}). On a cluster of"
            " several nodes the output must be in an object store, or in a directory that all nodes share"
        )
    for subdirectory in ("candidates", "rejects", "_manifest/read"):
        output.remove_leftovers(subdirectory)
    output.write("summary.json", summary.model_dump_json(indent=2).encode())
    output.write("_SUCCESS", b"")
