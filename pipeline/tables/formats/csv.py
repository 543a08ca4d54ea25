"""CSV with a header line; tab-separated where the file's name ends in .tsv. A row a candidate.

Ids and kept columns are text. An empty field is null: CSV has no other way to say so.
"""

import csv
import sys
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.layout import Layout, reading_schema, require_columns, survey_schema
from pipeline.tables.shards import FileSurvey, Slice
from pipeline.tables.storage import SourceFile, open_input
from pipeline.tables.text_lines import RunFinder, checked, numbered_lines

SUFFIXES: tuple[str, ...] = (
    ".csv",
    ".csv.gz",
    ".csv.zst",
    ".csv.bz2",
    ".tsv",
    ".tsv.gz",
    ".tsv.zst",
    ".tsv.bz2",
)

csv.field_size_limit(sys.maxsize)


def survey(file: SourceFile, layout: Layout) -> FileSurvey:
    own, runs = layout.columns, RunFinder()
    with open_input(file.url) as stream:
        header, body, first_row = _header(stream, file.url)
        needed = [own.query_id, own.query, own.passage_id, own.passage, *layout.kept.values()]
        require_columns(file.url, needed, header)
        place = header.index(own.query_id)
        stop = body
        for start, number, following, fields in _records(stream, file.url, body, None, first_row):
            runs.add((fields[place] or None) if len(fields) == len(header) else None, start, number)
            stop = following
    schema = survey_schema(pa.string(), pa.string(), dict.fromkeys(layout.kept, pa.string()))
    return runs.survey(file, body, first_row, stop, schema)


def read(piece: Slice, layout: Layout, schema: pa.Schema) -> pa.Table:
    with open_input(piece.file) as stream:
        header, _, _ = _header(stream, piece.file)
        records = _records(stream, piece.file, piece.start, piece.stop, piece.first_row)
        rows = [_row(header, fields, number, layout) for _, number, _, fields in records]
    return pa.Table.from_pylist(rows, schema=reading_schema(schema))


def _header(stream: IO[bytes], url: str) -> tuple[list[str], int, int]:
    """The column names, and byte and line number of the first record."""
    for _, number, stop, fields in _records(stream, url, 0, None, 1):
        names = [name.removeprefix("\ufeff") for name in fields]
        return names, stop, number + 1
    raise InputError(f"{url}: has no header line")


def _records(
    stream: IO[bytes], url: str, start: int, stop: int | None, row: int
) -> Iterator[tuple[int, int, int, list[str]]]:
    """(byte, line number, byte of the next, fields) of the records that begin in [start, stop).

    A record that is no CSV has no fields. Undecodable bytes become lone surrogates, for `checked` to find.
    """
    place, number = start, row
    last = (start, row)

    def lines() -> Iterator[str]:
        nonlocal place, number
        for begin, line_number, line in numbered_lines(stream, start, None, row):
            place, number = begin + len(line), line_number + 1
            yield line.decode(errors="surrogateescape")

    delimiter = "\t" if ".tsv" in url.rpartition("/")[2].lower() else ","
    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    while stop is None or place < stop:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            fields = []
        yield *last, place, fields
        last = (place, number)


def _row(header: list[str], fields: list[str], number: int, layout: Layout) -> dict[str, Any]:
    own = layout.columns
    values = dict(zip(header, fields, strict=False)) if len(fields) == len(header) else {}
    kept = {ours: values.get(theirs) or None for ours, theirs in layout.kept.items()}
    row: dict[str, Any] = {
        "query_id": values.get(own.query_id) or None,
        "query": values.get(own.query) or None,
        "passage_id": values.get(own.passage_id) or None,
        "passage": values.get(own.passage) or None,
        "kept": {name: value and value.encode(errors="replace").decode() for name, value in kept.items()},
        "row": number,
        "item": None,
    }
    return checked(row, (pa.string(), pa.string())) if values else {**row, "reason": "malformed_row"}
