"""Tables read whole: what a scan of a file tells, and the text files among them, read row by row."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.input.compression import is_packed
from pipeline.tables.input.files import SourceFile
from pipeline.tables.input.json_values import as_type
from pipeline.tables.input.layout import WholeLayout
from pipeline.tables.input.partitions import Partitions
from pipeline.tables.input.shards import FileRange
from pipeline.tables.input.text_file import TextFile, open_text

_SAMPLED_ROWS = 1000
_BATCH_ROWS = 4096
_COMPRESSION = 4
"""What compressed text grows by when it is read, about."""

Types = dict[str, pa.DataType]
Row = dict[str, Any]
Rows = Callable[[TextFile], Iterator[tuple[int, Row]]]
"""Of a text file: (line number, column to value) of every row. Raises InputError for no row."""


@dataclass(frozen=True)
class TableScan:
    """What a scan tells of one file."""

    types: Types
    """Of its columns, those of its path included; a file without rows has none."""
    file_ranges: tuple[FileRange, ...]
    """What is read at a time, without those that hold no rows where that is known."""
    rows: int
    """Exact, or an estimate."""
    size_bytes: int | None
    """In memory, an estimate; None where the rows themselves must be asked."""
    untold: Types = field(default_factory=dict)
    """Of columns without any value, which `types` has as null: the types that they were given."""


def with_partitions(types: Types, partitions: Partitions) -> Types:
    """The types of a file's columns with those that its path adds."""
    return dict.fromkeys(partitions, pa.string()) | types


def stretch(file: SourceFile, start: int, stop: int) -> FileRange:
    """A part of a file: rows, or of a text file all bytes."""
    return FileRange(
        file=file.url,
        identity=file.identity,
        start=start,
        stop=stop,
        first_row=start + 1,
        partitions=file.partitions,
    )


def scan_rows(
    file: SourceFile,
    rows: Rows,
    layout: WholeLayout,
    types_of: Callable[[list[Row], Iterator[Row]], Types],
    chars_of: Callable[[Row], int],
) -> TableScan:
    """Of a text file. types_of: from the first rows, and the others for who needs them; chars_of: a row's."""
    with open_text(file.url, layout.limits) as text:
        others = (row for _, row in rows(text))
        sample = list(islice(others, _SAMPLED_ROWS))
        types = with_partitions(types_of(sample, others), file.partitions) if sample else {}
    size_bytes = file.size * (_COMPRESSION if is_packed(file.url) else 1)
    sampled = sum(chars_of(row) + 1 for row in sample)
    return TableScan(
        types,
        (stretch(file, 0, file.size),),
        size_bytes * len(sample) // max(1, sampled),
        size_bytes,
    )


def read_rows(
    file_range: FileRange, rows: Rows, layout: WholeLayout, schema: pa.Schema
) -> Iterator[tuple[pa.Table, pa.Array]]:
    """Of a text file: `WholeFormat.read_table`."""
    with open_text(file_range.file, layout.limits) as text:
        numbered = rows(text)
        while batch := list(islice(numbered, _BATCH_ROWS)):
            values = [
                _values({**file_range.partitions, **row}, schema, layout, f"{file_range.file} line {number}")
                for number, row in batch
            ]
            numbers = [number for number, _ in batch]
            yield _table(values, numbers, schema, file_range.file), pa.array(numbers, pa.int64())


def text_types(sample: list[Row], _others: Iterator[Row]) -> Types:
    """Where every column is text, and every row has all of them."""
    return dict.fromkeys(sample[0], pa.string())


def joined_chars(row: Row) -> int:
    """Of a row whose values stand side by side."""
    return len("\t".join(map(str, row.values())))


def _values(row: Row, schema: pa.Schema, layout: WholeLayout, place: str) -> Row:
    """Ids and texts stay what they are: one of another type than the column's is a mistake."""
    values = {}
    for column in schema:
        value = row.get(column.name)
        try:
            values[column.name] = (
                _exact(value, column) if column.name in layout.exact else as_type(value, column.type)
            )
        except ValueError as error:
            raise InputError(f"{place}: {column.name}: {error}") from error
    return values


def _exact(value: Any, field: pa.Field) -> Any:
    """Raises ValueError for what Arrow would make the column's type of: 1.0 an integer, true a 1."""
    kind = int if pa.types.is_integer(field.type) else str
    if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
        raise ValueError(f"{value!r} does not fit its column, which is {field.type}")
    return value


def _table(values: list[Row], numbers: list[int], schema: pa.Schema, url: str) -> pa.Table:
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
