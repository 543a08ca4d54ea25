"""Tab-separated fields as they are, without quotes: MS MARCO's tables. Ids and all else are text.

An empty field is null. Where the file has no header line, the config names the columns.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa

from pipeline.tables.input.compression import with_compression
from pipeline.tables.input.files import SourceFile
from pipeline.tables.input.layout import WholeLayout, refuse_repeated, require_columns
from pipeline.tables.input.shards import FileRange
from pipeline.tables.input.text_file import TextFile, open_text
from pipeline.tables.input.text_lines import first_line, refuse_header, tab_separated
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

_MARK = "\ufeff"
"""Where files with marks were joined, one stands before a line. A text may begin with it, an id does not."""
TRAITS = Traits(names_columns=False)
SUFFIXES = with_compression(".tsv", ".txt")


def is_like(first: bytes, id_name: str) -> bool:
    return id_name.encode() in first_line(first).split(b"\t")


def scan_table(file: SourceFile, layout: WholeLayout) -> TableScan:
    if layout.header is None:
        with open_text(file.url, layout.limits) as text:
            first = next(tab_separated(text, 0, None, 1), None)
        if first is not None:
            require_columns(file.url, layout.ids, [*first[3], *file.partitions], f"{layout.field}.columns")
    types = partial(text_types, tabs_of=file.url)
    return scan_rows(file, partial(rows, layout=layout), layout, types, joined_chars)


def read_table(file_range: FileRange, layout: WholeLayout, schema: pa.Schema) -> Iterator[TableRows]:
    return read_rows(file_range, partial(rows, layout=layout), layout, schema)


def rows(text: TextFile, layout: WholeLayout) -> Iterator[tuple[int, Row | str]]:
    """(line number, column to value) of every line, or the reason why it is no row."""
    header: Sequence[str] | None = layout.header
    for _, number, _, fields in tab_separated(text, 0, None, 1):
        if header is not None and header[0] in layout.ids:
            fields[0] = fields[0].removeprefix(_MARK)
        if header is None:
            header = fields
            refuse_repeated(text.url, header)
        elif len(fields) != len(header):
            yield number, "malformed_row"
        else:
            refuse_header(text.url, number, header, fields)
            yield number, {name: value or None for name, value in zip(header, fields, strict=True)}
