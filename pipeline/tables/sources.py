"""Tables read whole, whatever columns they hold: what `prepare` makes a candidate table of.

A scan reads what tells a table's types and size: Parquet footers, the first rows of text files, and every
line of candidates in JSON, whose types no single line tells. A Parquet file is read in ranges of whole row
groups, a text file in one.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.formats import csv, jsonl, parquet, trec, tsv
from pipeline.tables.input.config import PairsConfig, TextColumns, TextsConfig
from pipeline.tables.input.files import SourceFile, check_unchanged, find_files, open_input
from pipeline.tables.input.layout import common_type, require_columns
from pipeline.tables.input.shards import FileRange
from pipeline.tables.schema import is_id, is_text

_FORMATS = {"parquet": parquet, "jsonl": jsonl, "csv": csv, "tsv": tsv, "trec": trec}
_SCAN_THREADS = 8
_FILE_RANGE_BYTES = 64 * 2**20
_BATCH_ROWS = 4096
_SAMPLED_ROWS = 1000
_COMPRESSION = 4
"""What compressed text grows by when it is read, about."""

Types = dict[str, pa.DataType]


@dataclass(frozen=True)
class Source:
    """A table as it lies there."""

    config: PairsConfig | TextsConfig
    field: str
    """Where the config names it: candidates, queries or passages."""
    files: tuple[SourceFile, ...]
    file_ranges: tuple[FileRange, ...]
    types: Types
    """Of its columns, the same in all files."""
    rows: int
    """Exact for Parquet, else an estimate, as `size_bytes` (in memory) always is."""
    size_bytes: int
    skipped: dict[str, str]

    def described(self) -> str:
        return f"{len(self.files)} files, about {self.rows} rows, {self.size_bytes / 2**20:.1f} MiB"

    @property
    def ids(self) -> list[str]:
        """The columns that hold ids."""
        columns = self.config.columns
        if isinstance(columns, TextColumns):
            return [columns.id]
        return [columns.query_id, columns.passage_id]


@dataclass(frozen=True)
class _File:
    """What a scan finds in one file; a text file without rows has no types."""

    types: Types
    file_ranges: list[FileRange]
    rows: int
    size_bytes: int


def scan(config: PairsConfig | TextsConfig, field: str, needed: list[str]) -> Source:
    """needed: the columns it must have. Raises InputError, naming file and column, where it can't be read."""
    files, skipped = find_files(config.path, _FORMATS[config.format].SUFFIXES)
    with ThreadPoolExecutor(_SCAN_THREADS) as threads:
        found = list(threads.map(partial(_scan_file, config=config), files))
    types = _common_types([(file.url, one.types) for file, one in zip(files, found, strict=True)], config)
    file_ranges = tuple(file_range for one in found for file_range in one.file_ranges)
    for file, one in zip(files, found, strict=True):
        if one.types:
            require_columns(file.url, needed, list(one.types), f"{field}.columns")
    if not (types and file_ranges):
        raise InputError(f"{config.path}: holds no rows")
    source = Source(
        config=config,
        field=field,
        files=tuple(files),
        file_ranges=file_ranges,
        types=types,
        rows=sum(one.rows for one in found),
        size_bytes=sum(one.size_bytes for one in found),
        skipped=skipped,
    )
    _check_types(source, set(needed) - set(source.ids))
    return source if config.format != "parquet" else replace(source, size_bytes=_parquet_bytes(source))


def read(file_range: FileRange, source: Source, wanted: list[str]) -> Iterator[tuple[pa.Table, pa.Array]]:
    """The wanted columns, and each row's 1-based number (text files: line), in batches.

    Raises InputError naming file and row for one that is not of the table's form or types.
    """
    check_unchanged(file_range.file, file_range.identity)
    if source.config.format == "parquet":
        for first, table in parquet.tables(file_range, wanted):
            yield table, pa.array(range(first, first + table.num_rows), pa.int64())
        return
    schema = pa.schema([(name, source.types[name]) for name in wanted])
    rows = _text_rows(file_range.file, source.config)
    while batch := list(islice(rows, _BATCH_ROWS)):
        values = [_values({**file_range.partitions, **row}, schema, source.ids) for _, row in batch]
        numbers = [number for number, _ in batch]
        yield _table(values, numbers, schema, file_range.file), pa.array(numbers, pa.int64())


def _scan_file(file: SourceFile, config: PairsConfig | TextsConfig) -> _File:
    if config.format == "parquet":
        types, groups = parquet.columns(file.url)
        types = _with_partitions(types, file)
        return _File(types, list(_file_ranges(file, groups)), sum(rows for rows, _ in groups), 0)
    lines = _text_rows(file.url, config)
    sample = [row for _, row in islice(lines, _SAMPLED_ROWS)]
    if config.format == "jsonl":
        types = _json_types(sample, (row for _, row in lines), config)
    elif config.format == "trec":
        types = trec.columns()
    else:
        types = dict.fromkeys(sample[0], pa.string()) if sample else {}
    size_bytes = file.size * (_COMPRESSION if file.url.lower().endswith((".gz", ".bz2", ".xz")) else 1)
    sampled = sum(
        len(str(row) if config.format == "jsonl" else "\t".join(map(str, row.values()))) + 1 for row in sample
    )
    file_range = _file_range(file, 0, file.size)
    return _File(
        _with_partitions(types, file) if sample else {},
        [file_range],
        size_bytes * len(sample) // max(1, sampled),
        size_bytes,
    )


def _json_types(
    sample: list[dict[str, Any]], rest: Iterator[dict[str, Any]], config: PairsConfig | TextsConfig
) -> Types:
    if isinstance(config, PairsConfig):
        types = jsonl.common_types(chain(sample, rest))
        # An id has the type of the first: `read` names the row where another comes.
        for name in {config.columns.query_id, config.columns.passage_id} & types.keys():
            first = next((row[name] for row in sample if row.get(name) is not None), None)
            types |= jsonl.common_types([{name: first}])
        return types
    types, own = jsonl.common_types(sample), config.columns
    if own.title and "title" not in own.model_fields_set:
        types.setdefault(own.title, pa.string())  # which later lines may have
    return types


def _parquet_bytes(source: Source) -> int:
    """Of the columns that are read, told from the first rows: a file holds a repeated text once."""
    columns = source.config.columns
    texts = isinstance(columns, TextColumns)
    wanted = [name for name in source.types if not texts or name in columns.model_dump().values()]
    sample, _ = next(read(source.file_ranges[0], source, wanted))
    return int(sample.nbytes / sample.num_rows * source.rows)


def _file_ranges(file: SourceFile, groups: list[tuple[int, int]]) -> Iterator[FileRange]:
    """Stretches of row groups of some size; a file without rows has none."""
    start = stop = size_bytes = 0
    for number, (rows, group_bytes) in enumerate(groups):
        stop, size_bytes = stop + rows, size_bytes + group_bytes
        if stop > start and (size_bytes >= _FILE_RANGE_BYTES or number == len(groups) - 1):
            yield _file_range(file, start, stop)
            start, size_bytes = stop, 0


def _file_range(file: SourceFile, start: int, stop: int) -> FileRange:
    """Rows of a Parquet file; of a text file all."""
    return FileRange(
        file=file.url,
        identity=file.identity,
        start=start,
        stop=stop,
        first_row=start + 1,
        partitions=file.partitions,
    )


def _with_partitions(types: Types, file: SourceFile) -> Types:
    return dict.fromkeys(file.partitions, pa.string()) | types


def _text_rows(url: str, config: PairsConfig | TextsConfig) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_input(url) as stream:
        if config.format == "tsv":
            yield from tsv.rows(stream, url, config.header)
        else:
            yield from {"jsonl": jsonl, "csv": csv, "trec": trec}[config.format].rows(stream, url)


def _common_types(files: list[tuple[str, Types]], config: PairsConfig | TextsConfig) -> Types:
    """Of all files. JSON's columns come and go and have a type in common; others must be alike."""
    known = [(url, types) for url, types in files if types]
    if config.format == "jsonl":
        names = dict.fromkeys(name for _, types in known for name in types)
        return {
            name: reduce(common_type, (types[name] for _, types in known if name in types)) for name in names
        }
    for url, types in known[1:]:
        first_url, first = known[0]
        for name in [*first, *types]:
            if types.get(name) != first.get(name):
                has, had = (found.get(name) or "not there" for found in (types, first))
                raise InputError(f"{url}: column {name!r} is {has}, and {had} in {first_url}")
    return known[0][1] if known else {}


def _check_types(source: Source, texts: set[str]) -> None:
    for name in source.ids:
        if not is_id(source.types[name]):
            raise InputError(
                f"{source.config.path}: column {name!r} is {source.types[name]};"
                " ids are text, integers or binary"
            )
    for name in sorted(texts):
        if not is_text(source.types[name]):
            raise InputError(
                f"{source.config.path}: column {name!r} is {source.types[name]}, a text is needed"
            )


def _values(row: dict[str, Any], schema: pa.Schema, ids: list[str]) -> dict[str, Any]:
    """Ids stay what they are: one of another type than the first's is a mistake."""
    return {
        field.name: row.get(field.name)
        if field.name in ids
        else jsonl.as_type(row.get(field.name), field.type)
        for field in schema
    }


def _table(values: list[dict[str, Any]], numbers: list[int], schema: pa.Schema, url: str) -> pa.Table:
    try:
        return pa.Table.from_pylist(values, schema=schema)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError) as error:
        if len(values) > 1:
            middle = len(values) // 2
            halves = (slice(None, middle), slice(middle, None))
            return pa.concat_tables(_table(values[half], numbers[half], schema, url) for half in halves)
        kinds = ", ".join(f"{field.name} {field.type}" for field in schema)
        raise InputError(
            f"{url} line {numbers[0]}: a value does not fit its column ({kinds}): {error}"
        ) from error
