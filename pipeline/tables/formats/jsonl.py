"""JSON lines, flat (a line a candidate) or nested (a line a query, with a list of candidates).

Integers and texts stay what they are. A kept column whose values differ in type becomes text, each value
that is none as JSON.
"""

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.input.columns import TextColumns
from pipeline.tables.input.compression import with_compression
from pipeline.tables.input.files import SourceFile
from pipeline.tables.input.json_rows import kept_values, parse_object
from pipeline.tables.input.json_values import common_type, common_types, type_of
from pipeline.tables.input.layout import Layout, WholeLayout, reading_schema, require_columns, scan_schema
from pipeline.tables.input.shards import FileRange, FileScan
from pipeline.tables.input.text_file import TextFile, open_text
from pipeline.tables.input.text_lines import (
    RunFinder,
    checked,
    first_line,
    id_type,
    is_id_value,
    numbered_lines,
    object_lines,
)
from pipeline.tables.input.traits import Traits
from pipeline.tables.input.whole_table import Row, TableRows, TableScan, Types, read_rows, scan_rows

_LOOKED_AT_ROWS = 1000
"""A name that none of these has is a mistake in the config."""
TRAITS = Traits(rows_name_columns=True)
SUFFIXES = with_compression(".jsonl", ".ndjson", ".json")


def is_like(first: bytes, id_name: str) -> bool:
    line = first_line(first)
    return line.startswith(b"{") and json.dumps(id_name, ensure_ascii=False).encode() in line


def scan(file: SourceFile, layout: Layout) -> FileScan | None:
    names, runs = layout.columns, RunFinder()
    passage_ids = Counter[type]()
    kept: dict[str, pa.DataType] = dict.fromkeys(layout.kept, pa.null())
    needed, lines = _Needed(file.url, layout), 0
    with open_text(file.url, layout.limits) as text:
        for start, number, line in object_lines(text):
            lines += 1
            row = parse_object(line, number, text, file.partitions)
            if isinstance(row, str):
                runs.add(None, start, number)
                continue
            candidates = _candidates(row, layout)
            needed.see(row, candidates)
            runs.add(row.get(names.query_id), start, number, len(candidates))
            for candidate in candidates:
                if is_id_value(value := candidate.get(names.passage_id)):
                    passage_ids[type(value)] += 1
                for ours, theirs in layout.kept.items():
                    kept[ours] = common_type(kept[ours], type_of(candidate.get(theirs, row.get(theirs))))
        stop = text.tell()
    if not lines:
        return None
    needed.check()
    return runs.scan(file, 0, 1, stop, scan_schema(runs.id_type, id_type(passage_ids), kept))


def read(file_range: FileRange, layout: Layout, schema: pa.Schema) -> pa.Table:
    rows: list[Row] = []
    with open_text(file_range.file, layout.limits) as text:
        lines = numbered_lines(text, file_range.start, file_range.stop, file_range.first_row)
        for _, number, line in lines:
            parsed = parse_object(line, number, text, file_range.partitions)
            rows += _rows(parsed, number, file_range, layout, schema)
    return pa.Table.from_pylist(rows, schema=reading_schema(schema))


class _Needed:
    """The columns that a file must have. A row may lack some: Spark leaves out what is null."""

    def __init__(self, url: str, layout: Layout) -> None:
        names = layout.columns
        self._url, self._layout, self._rows = url, layout, 0
        self._row: dict[str, Any] = {}
        self._candidate: dict[str, Any] = {}
        """The first ones, with what later ones have of these columns."""
        self._of_row = [names.query_id, names.query]
        self._of_candidate = [names.passage_id, names.passage]

    def see(self, row: dict[str, Any], candidates: list[dict[str, Any]]) -> None:
        """Raises InputError where the first rows have none of a column."""
        self._rows += 1
        if self._rows > _LOOKED_AT_ROWS:
            return
        self._row = _with(self._row, row, self._of_row)
        for candidate in candidates:
            self._candidate = _with(self._candidate, candidate, self._of_candidate)
        if self._rows == _LOOKED_AT_ROWS:
            self.check()

    def check(self) -> None:
        """Raises InputError where no row has one of the columns, or there is none."""
        if not self._rows:
            raise InputError(f"{self._url}: holds no line that is a JSON object; is input.format right?")
        require_columns(self._url, self._of_row, list(self._row))
        if self._candidate:
            nested = _is_nested(self._row, self._layout)
            place = f"{self._url}, in {self._layout.columns.candidates}" if nested else self._url
            require_columns(place, self._of_candidate, list(self._candidate))


def _with(first: dict[str, Any], other: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The first row, or candidate, with what another one has beside it of these columns."""
    return {**first, **{name: other[name] for name in names if name in other}} if first else other


def _is_nested(row: dict[str, Any], layout: Layout) -> bool:
    return layout.columns.candidates in row and layout.columns.passage_id not in row


def _candidates(row: dict[str, Any], layout: Layout) -> list[dict[str, Any]]:
    if not _is_nested(row, layout):
        return [row]
    items = row[layout.columns.candidates]
    return [item if isinstance(item, dict) else {} for item in items] if isinstance(items, list) else []


def _rows(
    parsed: dict[str, Any] | str, number: int, file_range: FileRange, layout: Layout, schema: pa.Schema
) -> Iterator[dict[str, Any]]:
    names = layout.columns
    empty = {"query_id": None, "query": None, "passage_id": None, "passage": None, "kept": None, "item": None}
    id_types = (schema.field("query_id").type, schema.field("passage_id").type)
    if isinstance(parsed, str):
        yield {**empty, "row": number, "reason": parsed}
        return
    nested = _is_nested(parsed, layout)
    if nested and not isinstance(parsed[names.candidates], list):
        row = checked({**empty, "query_id": parsed.get(names.query_id), "row": number}, id_types)
        # Whatever else is wrong with it: it was counted as no pair.
        yield {**row, "reason": "null_candidates", "field": None}
        return
    for item, candidate in enumerate(_candidates(parsed, layout), start=1):
        row = {
            "query_id": parsed.get(names.query_id),
            "query": parsed.get(names.query),
            "passage_id": candidate.get(names.passage_id),
            "passage": candidate.get(names.passage),
            "kept": kept_values(parsed, candidate, layout, schema, f"{file_range.file} line {number}"),
            "row": number,
            "item": item if nested else None,
        }
        yield checked(row, id_types)


def rows(text: TextFile) -> Iterator[tuple[int, Row | str]]:
    """(line number, object) of every line, or the reason why it holds none."""
    for _, number, line in object_lines(text):
        yield number, parse_object(line, number, text, {})


def scan_table(file: SourceFile, layout: WholeLayout) -> TableScan:
    """Reads every line of candidates, whose types no single line tells."""
    return scan_rows(file, rows, layout, partial(_types, layout=layout), lambda row: len(str(row)))


def read_table(file_range: FileRange, layout: WholeLayout, schema: pa.Schema) -> Iterator[TableRows]:
    return read_rows(file_range, rows, layout, schema)


def _types(sample: list[Row], others: Iterator[Row], layout: WholeLayout) -> Types:
    """Also of values that no row may have, which `read_table` refuses by their rows."""
    if isinstance(layout.columns, TextColumns):
        types = common_types(sample)
        if layout.columns.title in types:
            types[layout.columns.title] = pa.string()
        elif title := layout.columns.optional_title:
            types[title] = pa.null()  # which later lines may have
        kept = set(layout.kept).difference(layout.exact)
        if kept:
            every = common_types(chain(sample, others))
            types |= {name: every[name] for name in kept & every.keys()}
    else:
        types = common_types(chain(sample, others))
    for name in set(layout.ids) & types.keys():
        values = [row[name] for row in sample if row.get(name) is not None]
        usable = Counter(type(value) for value in values if is_id_value(value))
        types[name] = id_type(usable) if usable else type_of(values[0] if values else None)
    return types
