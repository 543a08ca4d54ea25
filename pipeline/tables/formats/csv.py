"""CSV with a header line; where the file's name ends in .tsv, tabs and no quotes. A row a candidate.

Ids and kept columns are text. An empty field is null: CSV has no other way to say so.
"""

import csv
import sys
from codecs import BOM_UTF8
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.input.compression import with_compression
from pipeline.tables.input.files import SourceFile
from pipeline.tables.input.layout import (
    Layout,
    WholeLayout,
    reading_schema,
    refuse_repeated,
    require_columns,
    scan_schema,
)
from pipeline.tables.input.partitions import Partitions
from pipeline.tables.input.shards import FileRange, FileScan
from pipeline.tables.input.text_file import TextFile, open_text
from pipeline.tables.input.text_lines import (
    Quotes,
    RunFinder,
    all_lines,
    checked,
    first_line,
    is_tab_separated,
    refuse_header,
    tab_separated,
    without_mark,
)
from pipeline.tables.input.traits import Traits
from pipeline.tables.input.whole_table import (
    Row,
    TableRows,
    TableScan,
    joined_chars,
    read_rows,
    scan_rows,
    text_types,
)

TRAITS = Traits()
SUFFIXES = with_compression(".csv", ".tsv")

_MAX_LINES = 10_000
"""Of one record: more is a stray quote that swallows the file."""

_MARK_AND_QUOTE = BOM_UTF8 + b'"'

csv.field_size_limit(sys.maxsize)


def is_like(first: bytes, id_name: str) -> bool:
    line, name = first_line(first), id_name.encode()
    return any(name in (field.strip(b'"') for field in line.split(mark)) for mark in (b",", b"\t"))


def scan(file: SourceFile, layout: Layout) -> FileScan | None:
    query_id, runs, has_tabs = layout.columns.query_id, RunFinder(), is_tab_separated(file.url)
    with open_text(file.url, layout.limits) as text:
        header, body, first_row = _header(text)
        if header:  # alone it may be a row of a file without one
            _check_header(file, header, layout)
        stop, quotes = body, Quotes(file.url)
        for start, number, following, fields in _records(text, body, None, first_row, len(header)):
            if fields:
                refuse_header(file.url, number, header, fields)
            if has_tabs:
                quotes.see(fields)
            runs.add(_values(header, fields, file.partitions).get(query_id) or None, start, number)
            stop = following
    quotes.tell()
    if stop == body:
        return None
    schema = scan_schema(pa.string(), pa.string(), dict.fromkeys(layout.kept, pa.string()))
    return runs.scan(file, body, first_row, stop, schema)


def _check_header(file: SourceFile, header: list[str], layout: Layout) -> None:
    names = layout.columns
    refuse_repeated(file.url, header)
    present = list(dict.fromkeys([*header, *file.partitions]))
    require_columns(file.url, [names.query_id, names.query, names.passage_id, names.passage], present)
    require_columns(file.url, list(layout.kept.values()), present, "output.keep_columns")


def read(file_range: FileRange, layout: Layout, schema: pa.Schema) -> pa.Table:
    with open_text(file_range.file, layout.limits) as text:
        header, _, _ = _header(text)
        records = _records(text, file_range.start, file_range.stop, file_range.first_row, len(header))
        rows = [
            _row(_values(header, fields, file_range.partitions), number, layout)
            for _, number, _, fields in records
        ]
    return pa.Table.from_pylist(rows, schema=reading_schema(schema))


def _header(text: TextFile) -> tuple[list[str], int, int]:
    """The column names, and byte and line number of the first record; no names in a blank file."""
    for _, number, stop, fields in _records(text, 0, None, 1):
        if not fields:
            raise InputError(f"{text.url} line {number}: the line of column names is no CSV")
        return fields, stop, number + 1
    return [], 0, 1


def _records(
    text: TextFile, start: int, stop: int | None, row: int, width: int = 0
) -> Iterator[tuple[int, int, int, list[str]]]:
    """(byte, line number, byte of the next, fields) of the records that begin in [start, stop).

    A record that is no CSV has no fields. One that goes over several lines and then is no CSV, or has another
    width than the header's, is one whose quote was never meant: its first line alone is refused, and reading
    goes on with the second. Undecodable bytes become lone surrogates, for `checked` to find.
    """
    if is_tab_separated(text.url):
        yield from tab_separated(text, start, stop, row)
        return
    place = start
    while stop is None or place < stop:
        lines = _Lines(text, place, row)
        reader = csv.reader(lines, strict=True)
        while stop is None or lines.place < stop:
            place, row, lines.taken = lines.place, lines.row, 0
            try:
                fields: list[str] | None = next(reader)
            except StopIteration:
                return
            except csv.Error:
                fields = None
            stray = lines.taken > 1 and (fields is None or len(fields) != (width or len(fields)))
            if stray:
                fields, lines.place, lines.row = None, lines.second, row + 1
            if not _is_blank(fields):
                yield place, row, lines.place, fields or []
            if stray:
                break
        place, row = lines.place, lines.row


class _Lines:
    """The lines of a file as text, with the place of the next one and of the second one taken."""

    def __init__(self, text: TextFile, place: int, row: int) -> None:
        self._lines = all_lines(text, place, None, row)
        self.place, self.row, self.second, self.taken = place, row, place, 0
        self._start, self._max_bytes = place, text.limits.max_line_bytes

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.taken == 0:
            self._start = self.place
        if self.taken >= _MAX_LINES or self.place - self._start > self._max_bytes:
            raise csv.Error
        start, number, line = next(self._lines)
        self.place, self.row, self.taken = start + len(line), number + 1, self.taken + 1
        if self.taken == 1:
            self.second = self.place
        # Elsewhere it is a text's, but before a quotation mark, where no text can stand: of a joined file.
        if start == 0 or (self.taken == 1 and line.startswith(_MARK_AND_QUOTE)):
            line = without_mark(line)
        return line.decode(errors="surrogateescape")


def _is_blank(fields: list[str] | None) -> bool:
    return fields is not None and not "".join(fields).strip() and len(fields) <= 1


def _values(header: list[str], fields: list[str], partitions: Partitions) -> dict[str, str | None]:
    """By column, those of the path included; none for a record of another width than the header's."""
    return {**partitions, **dict(zip(header, fields, strict=True))} if len(fields) == len(header) else {}


def _row(values: dict[str, str | None], number: int, layout: Layout) -> dict[str, Any]:
    names = layout.columns
    row: dict[str, Any] = {
        "query_id": values.get(names.query_id) or None,
        "query": values.get(names.query) or None,
        "passage_id": values.get(names.passage_id) or None,
        "passage": values.get(names.passage) or None,
        "kept": {ours: values.get(theirs) or None for ours, theirs in layout.kept.items()},
        "row": number,
        "item": None,
    }
    return checked(row, (pa.string(), pa.string())) if values else {**row, "reason": "malformed_row"}


def rows(text: TextFile) -> Iterator[tuple[int, Row | str]]:
    """(line number, column to value) of every record, or the reason why it is none."""
    header, body, first_row = _header(text)
    refuse_repeated(text.url, header)
    for _, number, _, fields in _records(text, body, None, first_row, len(header)):
        if len(fields) != len(header):
            yield number, "malformed_row"
            continue
        refuse_header(text.url, number, header, fields)
        yield number, {name: value or None for name, value in zip(header, fields, strict=True)}


def scan_table(file: SourceFile, layout: WholeLayout) -> TableScan:
    with open_text(file.url, layout.limits) as text:
        header, _, _ = _header(text)
    if header:
        require_columns(file.url, layout.ids, [*header, *file.partitions], f"{layout.field}.columns")
    types = partial(text_types, tabs_of=file.url if is_tab_separated(file.url) else None)
    return scan_rows(file, rows, layout, types, joined_chars)


def read_table(file_range: FileRange, layout: WholeLayout, schema: pa.Schema) -> Iterator[TableRows]:
    return read_rows(file_range, rows, layout, schema)
