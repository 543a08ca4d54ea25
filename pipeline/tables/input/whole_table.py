"""Tables read whole: what a scan of a file tells, and the text files among them, read row by row."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.input.arrow_types import as_type as as_arrow_type
from pipeline.tables.input.arrow_types import column_of, plain
from pipeline.tables.input.cleaning import Refusals, is_int64, is_unicode
from pipeline.tables.input.compression import is_packed
from pipeline.tables.input.files import SourceFile
from pipeline.tables.input.json_values import as_type
from pipeline.tables.input.layout import WholeLayout
from pipeline.tables.input.partitions import Partitions
from pipeline.tables.input.shards import FileRange
from pipeline.tables.input.text_file import TextFile, open_text
from pipeline.tables.input.text_lines import Quotes
from pipeline.tables.schema import REASONS

RANGE_BYTES = 64 * 2**20
"""What is read at a time of a table, uncompressed, where a file can be read in parts."""
_SAMPLED_ROWS = 1000
_BATCH_ROWS = 4096
_COMPRESSION = 4
"""What compressed text grows by when it is read, about."""

Types = dict[str, pa.DataType]
Row = dict[str, Any]
Rows = Callable[[TextFile], Iterator[tuple[int, Row | str]]]
"""Of a text file: (line number, column to value) of every row, or the reason why a line holds none."""


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

    def range_rows(self) -> list[int]:
        """The rows of each file range. A file that is read in parts has exact ones."""
        if len(self.file_ranges) == 1:
            return [self.rows]
        return [file_range.stop - file_range.start for file_range in self.file_ranges]


@dataclass(frozen=True)
class TableRows:
    """Some rows, as they were read."""

    columns: pa.Table
    numbers: pa.Array
    """Of each row, 1-based (text files: of its line)."""
    refusals: Refusals
    """What the reader has against a row, whose values may be null then. Fields are the table's columns."""


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
        deleted=file.deleted.within(start, stop),
    )


def arrow_rows(rows: pa.Table, numbers: pa.Array, url: str, schema: pa.Schema) -> TableRows:
    """Of a file of Arrow's types, as `WholeFormat.read_table`. numbers: as `TableRows` has them."""
    columns = [
        as_arrow_type(plain(column_of(rows, each.name)), each.type, f"{url}: column {each.name!r}")
        for each in schema
    ]
    return TableRows(pa.table(columns, schema=schema), numbers, Refusals.none(rows.num_rows))


def scan_rows(
    file: SourceFile,
    rows: Rows,
    layout: WholeLayout,
    types_of: Callable[[list[Row], Iterator[Row]], Types],
    chars_of: Callable[[Row], int],
) -> TableScan:
    """Of a text file. types_of: from the first rows, and the others for who needs them; chars_of: a row's.

    Raises InputError where lines are there, and none of them is a row.
    """
    refused: list[tuple[int, str]] = []
    with open_text(file.url, layout.limits) as text:
        others = _rows_alone(rows(text), refused)
        sample = list(islice(others, _SAMPLED_ROWS))
        types = with_partitions(types_of(sample, others), file.partitions) if sample else {}
    if refused and not sample:
        number, reason = refused[0]
        raise InputError(
            f"{file.url}: holds no row that can be read; line {number}, the first one, is"
            f" {REASONS[reason]}. Is {layout.field}.format right?"
        )
    size_bytes = file.size * (_COMPRESSION if is_packed(file.url) else 1)
    sampled = sum(chars_of(row) + 1 for row in sample)
    return TableScan(
        types,
        (stretch(file, 0, file.size),),
        max(len(sample) and 1, size_bytes * len(sample) // max(1, sampled)),
        size_bytes,
    )


def read_rows(
    file_range: FileRange, rows: Rows, layout: WholeLayout, schema: pa.Schema
) -> Iterator[TableRows]:
    """Of a text file: `WholeFormat.read_table`."""
    check = _Check(schema, layout, file_range)
    with open_text(file_range.file, layout.limits) as text:
        numbered = rows(text)
        while batch := list(islice(numbered, _BATCH_ROWS)):
            checked = [check(number, row) for number, row in batch]
            reasons, fields = (
                pa.chunked_array([pa.array([row[at] for row in checked], pa.string())]) for at in (1, 2)
            )
            yield TableRows(
                pa.Table.from_pylist([row[0] for row in checked], schema=schema),
                pa.array([number for number, _ in batch], pa.int64()),
                Refusals(reasons, fields),
            )


def _rows_alone(rows: Iterator[tuple[int, Row | str]], refused: list[tuple[int, str]]) -> Iterator[Row]:
    """refused: gets the first line that is no row, and why."""
    for number, row in rows:
        if not isinstance(row, str):
            yield row
        elif not refused:
            refused.append((number, row))


def text_types(sample: list[Row], _others: Iterator[Row], tabs_of: str | None = None) -> Types:
    """Where every column is text, and every row has all of them.

    tabs_of: the url of a tab-separated file, where quotes are told.
    """
    if tabs_of is not None:
        quotes = Quotes(tabs_of)
        for row in sample:
            quotes.see(row.values())
        quotes.tell()
    return dict.fromkeys(sample[0], pa.string())


def joined_chars(row: Row) -> int:
    """Of a row whose values stand side by side."""
    return len("\t".join(map(str, row.values())))


class _Check:
    """Takes a row's values for the columns of a schema, or tells why the row can't be used.

    Ids and texts stay what they are: one of another type than the column's is a mistake.
    """

    def __init__(self, schema: pa.Schema, layout: WholeLayout, file_range: FileRange) -> None:
        self._schema, self._range = schema, file_range
        self._ids = set(layout.ids)
        self._texts = set(layout.exact) - self._ids

    def __call__(self, number: int, row: Row | str) -> tuple[Row, str | None, str | None]:
        """The row with null for what Arrow can't hold, the reason to refuse it, and the column, or null.

        Raises InputError for a value that the type of a column that is passed through can't hold.
        """
        if isinstance(row, str):
            return {}, row, None
        values, reason, wrong = {}, None, None
        for column in self._schema:
            name = column.name
            value = row.get(name, self._range.partitions.get(name))
            try:
                values[name], why = self._value(value, column)
            except ValueError as error:
                raise InputError(f"{self._range.file} line {number}: {name}: {error}") from error
            if reason is None and why is not None:
                reason, wrong = why, name
        return values, reason, wrong

    def _value(self, value: Any, column: pa.Field) -> tuple[Any, str | None]:
        if value is None:
            return None, None
        if column.name in self._ids:
            integer = pa.types.is_integer(column.type)
            if not (is_int64(value) if integer else isinstance(value, str)):
                return None, "invalid_id"
        elif column.name not in self._texts:
            value = as_type(value, column.type)
        elif not isinstance(value, str):
            return None, "invalid_text"
        return (None, "invalid_text") if isinstance(value, str) and not is_unicode(value) else (value, None)
