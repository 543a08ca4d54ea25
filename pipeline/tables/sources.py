"""Tables read whole, whatever columns they hold: what `prepare` makes a candidate table of.

A scan reads what tells a table's types and size, as its format can; a read takes it in the ranges that the
scan gave.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import reduce

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.config import PairsConfig, TextsConfig
from pipeline.tables.format import SnapshotFormat, advised, whole_format, with_advice
from pipeline.tables.input import arrow_types, json_values
from pipeline.tables.input.columns import TextColumns
from pipeline.tables.input.deleted_rows import DeletedRows
from pipeline.tables.input.files import SourceFile, unchanged
from pipeline.tables.input.layout import WholeLayout, require_columns
from pipeline.tables.input.shards import FileRange
from pipeline.tables.input.whole_table import TableRows, TableScan, Types
from pipeline.tables.schema import is_id, is_text
from pipeline.tables.table_files import TableVersion, table_files

_SCAN_THREADS = 8
_TOGETHER_BYTES = 64 * 2**20
"""Of file ranges that are read by one task, in memory, where there are several."""
_READ_TOGETHER = 1000
"""File ranges, at most: a task's arguments travel as one row."""
_NAMES = {"passages": ("corpus", "passages", "docs", "documents"), "queries": ("queries",)}
"""As collections name their files."""


@dataclass(frozen=True)
class Source:
    """A table as it lies there."""

    config: PairsConfig | TextsConfig
    field: str
    """Where the config names it: candidates, queries or passages."""
    files: tuple[SourceFile, ...]
    file_ranges: tuple[FileRange, ...]
    range_rows: tuple[int, ...]
    """Of each of them, exact or an estimate."""
    types: Types
    """Of its columns, the same in all files."""
    rows: int
    """Exact for Parquet, else an estimate, as `size_bytes` (in memory) always is."""
    size_bytes: int
    skipped: dict[str, str]
    version: TableVersion | None
    """Of a table that has versions."""
    declared: pa.Schema | None
    """`WholeLayout.declared`."""

    def described(self) -> str:
        version = "" if self.version is None else f"version {self.version.version}, "
        size_bytes = f"{self.size_bytes / 2**20:.1f} MiB"
        return f"{version}{len(self.files)} files, about {self.rows} rows, {size_bytes}"

    def together(self, most_rows: int) -> Iterator[tuple[FileRange, ...]]:
        """All file ranges, neighbours of up to so many rows together: files may be many and small."""
        most_rows = min(most_rows, _TOGETHER_BYTES * self.rows // max(1, self.size_bytes))
        together, rows = list[FileRange](), 0
        for file_range, more in zip(self.file_ranges, self.range_rows, strict=True):
            if together and (rows + more > most_rows or len(together) == _READ_TOGETHER):
                yield tuple(together)
                together, rows = [], 0
            together.append(file_range)
            rows += more
        yield tuple(together)

    def with_type(self, column: str, data_type: pa.DataType) -> "Source":
        """The same, this column read in another type that holds its values."""
        return replace(self, types=self.types | {column: data_type})

    @property
    def has_versions(self) -> bool:
        """Whether the table tells its files itself."""
        return isinstance(whole_format(self.config.format), SnapshotFormat)

    @property
    def layout(self) -> WholeLayout:
        return _layout(self.config, self.field, declared=self.declared)

    @property
    def ids(self) -> list[str]:
        """The columns that hold ids."""
        return self.layout.ids


def scan(
    config: PairsConfig | TextsConfig, field: str, needed: list[str], kept: Iterable[str] = ()
) -> Source:
    """needed: the columns it must have; kept: those that are passed through. Raises InputError, naming file
    and column, where it can't be read.
    """
    table_format = whole_format(config.format)
    id_name = _layout(config, field).ids[0]
    table = table_files(config, field, id_name)
    layout = _layout(config, field, kept, table.schema)
    if table.schema is not None:
        table = table.read_as(layout.read(table.schema.names))
    files, skipped = table.files, dict(table.skipped)

    def scan_one(file: SourceFile) -> TableScan:
        try:
            return table_format.scan_table(file, layout)
        except InputError as error:
            told = str(advised(error, file.url, config.format, id_name, field))
            others = [each.url for each in files if each is not file]
            if not others or isinstance(table_format, SnapshotFormat):
                raise InputError(told) from error
            one = min(named_for(field, [*others, file.url]) - {file.url}, default=others[0])
            raise InputError(
                with_advice(
                    f"{config.path} means {len(files)} files, of which one can't be read as {field}: {told}",
                    f"To read one file alone: {field}.path={one}",
                )
            ) from error

    with ThreadPoolExecutor(_SCAN_THREADS) as threads:
        scans = list(threads.map(scan_one, files))
    skipped |= {file.url: "holds no rows" for file, each in zip(files, scans, strict=True) if not each.types}
    named = [(file.url, scanned.types) for file, scanned in zip(files, scans, strict=True) if scanned.types]
    if table_format.TRAITS.rows_name_columns:
        types = _merged_types(named, layout.ids)
    else:
        types = _common_types(named)
    title = config.columns.title if isinstance(config.columns, TextColumns) else None
    wanted = needed if title is None or title not in types else [*needed, title]
    types = _told(types, scans, wanted)
    for url, present in named:
        # A title is looked for where none may be.
        held = [name for name, kind in present.items() if name in needed or not pa.types.is_null(kind)]
        require_columns(url, needed, held, f"{field}.columns")
    file_ranges = tuple(file_range for scanned in scans for file_range in scanned.file_ranges)
    range_rows = tuple(rows for scanned in scans for rows in scanned.range_rows())
    if not (types and file_ranges):
        raise InputError(f"{config.path}: holds no rows")
    source = Source(
        config=config,
        field=field,
        # Deleted rows go with the ranges: each task is sent all files.
        files=tuple(file._replace(deleted=DeletedRows()) for file in files),
        file_ranges=file_ranges,
        range_rows=range_rows,
        types=types,
        rows=sum(scanned.rows for scanned in scans),
        size_bytes=0,
        skipped=skipped,
        version=TableVersion.of(config, table.version),
        declared=table.schema,
    )
    _check_types(source, set(wanted) - set(source.ids), title)
    return replace(source, size_bytes=_size_bytes(source, scans))


def named_for(field: str, urls: Sequence[str]) -> set[str]:
    """Those whose name, or that of a folder which not all of them are in, says that they hold this table:
    queries.jsonl, queries.dev.tsv, queries/part-0.parquet.
    """
    parts = {url: set(url.split("/")) for url in urls}
    common = set.intersection(*parts.values())
    return {
        url
        for url, each in parts.items()
        if any(re.split(r"[.\-_]", part.lower())[0] in _NAMES[field] for part in each - common)
    }


def read(file_range: FileRange, source: Source, wanted: list[str]) -> Iterator[TableRows]:
    """The wanted columns of every row, in batches, with what is known against a row."""
    table_format = whole_format(source.config.format)
    compared = table_format.TRAITS.files_are_compared
    schema = pa.schema([(name, source.types[name]) for name in wanted])
    with unchanged(file_range.file, file_range.identity) if compared else nullcontext():
        yield from table_format.read_table(file_range, source.layout, schema)


def _layout(
    config: PairsConfig | TextsConfig,
    field: str,
    kept: Iterable[str] = (),
    declared: pa.Schema | None = None,
) -> WholeLayout:
    return WholeLayout(field, config.columns, config.header, config.limits, tuple(kept), declared)


def _size_bytes(source: Source, scans: Sequence[TableScan]) -> int:
    sizes = [scanned.size_bytes for scanned in scans]
    known = [size_bytes for size_bytes in sizes if size_bytes is not None]
    return sum(known) if len(known) == len(sizes) else _sampled_bytes(source)


def _sampled_bytes(source: Source) -> int:
    """Of the columns that are read, told from the first rows."""
    columns = source.config.columns
    texts = isinstance(columns, TextColumns)
    wanted = [name for name in source.types if not texts or name in columns.model_dump().values()]
    sample = next(read(source.file_ranges[0], source, wanted)).columns
    return int(sample.nbytes / sample.num_rows * source.rows)


def _merged_types(files: list[tuple[str, Types]], ids: list[str]) -> Types:
    """Of all files, whose columns come and go and have a type in common.

    Raises InputError where ids have none: as text, all those of a file would be of another type.
    """
    names = dict.fromkeys(name for _, types in files for name in types)
    merged = {
        name: reduce(json_values.common_type, (types[name] for _, types in files if name in types))
        for name in names
    }
    for name in ids:
        merged |= _common_types([(url, {name: types[name]}) for url, types in files if name in types])
    return merged


def _common_types(files: list[tuple[str, Types]]) -> Types:
    """Of all files. Raises InputError where columns differ, or have no type in common."""
    first_url, first_types = files[0] if files else ("", {})
    common, places = dict(first_types), dict.fromkeys(first_types, first_url)
    for url, types in files[1:]:
        for name in [*common, *types]:
            has, had = types.get(name), common.get(name)
            together = has and had and arrow_types.common_type(had, has)
            if together is None:
                has, had = (kind or "not there" for kind in (has, had))
                raise InputError(
                    f"{url}: column {name!r} is {has}, and {had} in {places.get(name, first_url)};"
                    " write it in one type"
                )
            if together != had:
                common[name], places[name] = together, url
    return common


def _told(types: Types, scans: Sequence[TableScan], needed: list[str]) -> Types:
    """With a type for every column: without any value, ids and texts are text, others what a file says."""
    untold: Types = {}
    for scanned in scans:
        untold = {name: kind for name, kind in scanned.untold.items() if name not in needed} | untold
    none = {name for name, kind in types.items() if pa.types.is_null(kind)}
    return types | {name: untold.get(name, pa.string()) for name in none}


def _check_types(source: Source, texts: set[str], title: str | None) -> None:
    for name in source.ids:
        if not is_id(source.types[name]):
            raise InputError(
                f"{source.config.path}: column {name!r} is {source.types[name]};"
                " ids are text, integers or binary"
            )
    for name in sorted(texts):
        if not is_text(source.types[name]):
            way_out = f"; set {source.field}.columns.title to null to read no titles" if name == title else ""
            raise InputError(
                f"{source.config.path}: column {name!r} is {source.types[name]}, a text is needed{way_out}"
            )
