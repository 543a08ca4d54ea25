"""Lance: the fragments of one version, read by the library at that version, deletions left out."""

import hashlib
import json
import warnings
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pyarrow as pa

from pipeline.errors import InputError, NotThereError
from pipeline.tables.input.arrow_rows import (
    BATCH_ROWS,
    Runs,
    candidate_rows,
    checked_schema,
    is_nested,
    wanted_columns,
)
from pipeline.tables.input.arrow_types import plain_type
from pipeline.tables.input.files import SourceFile
from pipeline.tables.input.layout import Layout, WholeLayout, reading_schema
from pipeline.tables.input.shards import FileRange, FileScan
from pipeline.tables.input.snapshot import Snapshot, library, object_store_options
from pipeline.tables.input.traits import Traits
from pipeline.tables.input.whole_table import RANGE_BYTES, TableRows, TableScan, arrow_rows, stretch
from pipeline.tables.outage import waited_out
from pipeline.tables.storage import absolute, class_for

TRAITS = Traits(extra="lance", files_are_compared=False)
"""Fragments are no files."""


def snapshot(url: str, version: int | None) -> Snapshot:
    """A fragment is a file: URL#version=7&fragment=0, with rows as they count after deletions."""
    place = absolute(url)
    dataset = _dataset(place, version)
    return Snapshot(
        [_file(place, dataset.version, each) for each in dataset.get_fragments()], dataset.version
    )


def _file(place: str, version: int, fragment: Any) -> SourceFile:
    size = sum(each.file_size_bytes or 0 for each in fragment.metadata.files)
    return SourceFile(
        f"{place}#version={version}&fragment={fragment.fragment_id}", size, _identity(fragment), {}
    )


def scan(file: SourceFile, layout: Layout) -> FileScan:
    dataset, fragment = _fragment(file.url, file.identity)
    _refuse_blobs(file.url, dataset.schema, wanted_columns(dataset.schema, layout))
    schema = checked_schema(file.url, dataset.schema, layout)
    nested, runs = is_nested(dataset.schema, layout), Runs()
    columns = {"query_id": _quoted(layout.columns.query_id)}
    if nested:
        columns["candidates"] = f"array_length({_quoted(layout.columns.candidates)})"
    for batch in _batches(dataset, fragment, columns, 0, None):
        runs.add(batch["query_id"], batch["candidates"] if nested else None)
    return runs.scan(file, schema)


def read(file_range: FileRange, layout: Layout, schema: pa.Schema) -> pa.Table:
    target, first = reading_schema(schema), file_range.start
    dataset, fragment = _fragment(file_range.file, file_range.identity)
    columns = {name: _quoted(name) for name in wanted_columns(dataset.schema, layout)}
    parts = []
    for batch in _batches(dataset, fragment, columns, file_range.start, file_range.stop - file_range.start):
        parts.append(candidate_rows(batch, _numbers(first, batch), file_range.file, layout, target))
        first += batch.num_rows
    return pa.concat_tables(parts) if parts else target.empty_table()


def scan_table(file: SourceFile, layout: WholeLayout) -> TableScan:
    dataset, fragment = _fragment(file.url, file.identity)
    _refuse_blobs(file.url, dataset.schema, layout.read(dataset.schema.names))
    rows = fragment.count_rows()
    if rows == 0:
        return TableScan({}, (), 0, 0)
    step = max(1, rows * RANGE_BYTES // max(1, file.size))
    ranges = (stretch(file, start, min(start + step, rows)) for start in range(0, rows, step))
    return TableScan({each.name: plain_type(each.type) for each in dataset.schema}, tuple(ranges), rows, None)


def read_table(file_range: FileRange, _layout: WholeLayout, schema: pa.Schema) -> Iterator[TableRows]:
    first, rows = file_range.start, file_range.stop - file_range.start
    dataset, fragment = _fragment(file_range.file, file_range.identity)
    for batch in _batches(dataset, fragment, {name: _quoted(name) for name in schema.names}, first, rows):
        yield arrow_rows(batch, _numbers(first, batch), file_range.file, schema)
        first += batch.num_rows


def _numbers(first: int, batch: pa.Table) -> pa.Array:
    return pa.array(range(first + 1, first + 1 + batch.num_rows), pa.int64())


def _dataset(url: str, version: int | None) -> Any:
    lance = library("lance", TRAITS)
    # Ray forks only to start a program at once, which harms nothing.
    warnings.filterwarnings("ignore", message="lance is not fork-safe")
    options = object_store_options()
    try:
        return waited_out(lambda: lance.dataset(url, version=version, storage_options=options), url)
    except (ValueError, OSError, OverflowError) as error:
        what = f"not a readable Lance table: {error}"
        if "was not found" in str(error):  # it has no class for that
            raise NotThereError(url, what) from error
        raise class_for(error, InputError)(f"{url}: {what}") from error


def _fragment(url: str, identity: str) -> tuple[Any, Any]:
    """The table at the version that was planned with, and one of its fragments."""
    place, _, number = url.rpartition("#")
    pinned = parse_qs(number)
    dataset = _dataset(place, int(pinned["version"][0]))
    fragment = dataset.get_fragment(int(pinned["fragment"][0]))
    if fragment is None or _identity(fragment) != identity:
        raise InputError(f"{url}: changed while the job ran (another table stands there now)")
    return dataset, fragment


def _refuse_blobs(url: str, schema: pa.Schema, names: list[str]) -> None:
    """Raises InputError for a column of these that a scan gives no values of."""
    for name in names:
        field = schema.field(name)
        marked = (field.metadata or {}).get(b"lance-encoding:blob") == b"true"
        if marked or getattr(field.type, "extension_name", "").startswith("lance.blob"):
            raise InputError(
                f"{url}: column {name!r} is a blob column of Lance, whose values are not read here. Leave it"
                " out, or copy the table without it"
            )


def _identity(fragment: Any) -> str:
    """Of its data and deletion files, whose names are never used twice."""
    content = json.dumps(fragment.metadata.to_json(), sort_keys=True, default=str)
    return f"{fragment.count_rows()} rows, {hashlib.sha256(content.encode()).hexdigest()[:16]}"


def _batches(
    dataset: Any, fragment: Any, columns: dict[str, str], start: int, rows: int | None
) -> Iterator[pa.Table]:
    """The rows [start, start + rows), None for all. A read that fails while the store is away begins again
    where it was.
    """
    done, batches = 0, None

    def following() -> Any:
        nonlocal batches
        if batches is None:
            scanner = dataset.scanner(
                columns=columns,
                fragments=[fragment],
                offset=start + done,
                limit=None if rows is None else rows - done,
                batch_size=BATCH_ROWS,
                scan_in_order=True,
            )
            batches = iter(scanner.to_batches())
        try:
            return next(batches, None)
        except BaseException:
            batches = None
            raise

    while rows is None or done < rows:
        try:
            batch = waited_out(following, dataset.uri)
        except (ValueError, OSError) as error:
            what = f"{dataset.uri}: not a readable Lance table: {error}"
            raise class_for(error, InputError)(what) from error
        if batch is None:
            return
        done += batch.num_rows
        yield pa.Table.from_batches([batch])


def _quoted(name: str) -> str:
    """A column's name in Lance's SQL, which has no way to write one with a backtick."""
    if "`" in name:
        raise InputError(f"column {name}: Lance reads no column with a backtick in its name; rename it")
    return f"`{name}`"
