"""JSON lines, flat (a line a candidate) or nested (a line a query, with a list of candidates).

Integers and texts stay what they are. A kept column whose values differ in type becomes text, each value
that is none as JSON.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
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
from pipeline.tables.input.layout import Layout, WholeLayout, reading_schema, scan_schema
from pipeline.tables.input.needed_columns import ColumnsOfFile
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

TRAITS = Traits(rows_name_columns=True)
SUFFIXES = with_compression(".jsonl", ".ndjson", ".json")


def is_like(first: bytes, id_name: str) -> bool:
    line = first_line(first)
    return line.startswith(b"{") and json.dumps(id_name, ensure_ascii=False).encode() in line


def scan(file: SourceFile, layout: Layout) -> FileScan | None:
    names, runs = layout.columns, RunFinder()
    passage_ids = Counter[type]()
    kept: dict[str, pa.DataType] = dict.fromkeys(layout.kept, pa.null())
    columns, lines, good, has_candidates = ColumnsOfFile(file.url, layout), 0, 0, False
    with open_text(file.url, layout.limits) as text:
        for start, number, line in object_lines(text):
            lines += 1
            row = parse_object(line, number, text, file.partitions)
            if isinstance(row, str):
                runs.add(None, start, number)
                continue
            good += 1
            candidates = _candidates(row, layout)
            has_candidates |= bool(candidates) or not _is_nested(row, layout)
            columns.see(row, (candidates or []) if _is_nested(row, layout) else None)
            runs.add(row.get(names.query_id), start, number, 1 if candidates is None else len(candidates))
            for candidate in candidates or []:
                if is_id_value(value := candidate.get(names.passage_id)):
                    passage_ids[type(value)] += 1
                for ours, theirs in layout.kept.items():
                    kept[ours] = common_type(kept[ours], type_of(candidate.get(theirs, row.get(theirs))))
        stop = text.tell()
    if not lines:
        return None
    if not good:
        raise InputError(f"{file.url}: holds no line that is a JSON object; is input.format right?")
    schema = scan_schema(runs.id_type, id_type(passage_ids), kept)
    scan = runs.scan(file, 0, 1, stop, schema, columns.needed())
    return replace(scan, has_candidates=has_candidates)


def read(file_range: FileRange, layout: Layout, schema: pa.Schema) -> pa.Table:
    rows: list[Row] = []
    with open_text(file_range.file, layout.limits) as text:
        lines = numbered_lines(text, file_range.start, file_range.stop, file_range.first_row)
        for _, number, line in lines:
            parsed = parse_object(line, number, text, file_range.partitions)
            rows += _rows(parsed, number, file_range, layout, schema)
    return pa.Table.from_pylist(rows, schema=reading_schema(schema))


def _is_nested(row: dict[str, Any], layout: Layout) -> bool:
    return layout.columns.candidates in row and layout.columns.passage_id not in row


def _candidates(row: dict[str, Any], layout: Layout) -> list[dict[str, Any]] | None:
    """Those in a row's list, or the row itself. None where it has neither a list nor a passage."""
    names = layout.columns
    if _is_nested(row, layout):
        items = row[names.candidates]
        return [item if isinstance(item, dict) else {} for item in items] if isinstance(items, list) else None
    return [row] if names.passage_id in row or names.passage in row else None


def _rows(
    parsed: dict[str, Any] | str, number: int, file_range: FileRange, layout: Layout, schema: pa.Schema
) -> Iterator[dict[str, Any]]:
    names = layout.columns
    empty = {"query_id": None, "query": None, "passage_id": None, "passage": None, "kept": None, "item": None}
    id_types = (schema.field("query_id").type, schema.field("passage_id").type)
    if isinstance(parsed, str):
        yield {**empty, "row": number, "reason": parsed}
        return
    candidates = _candidates(parsed, layout)
    if candidates is None:
        row = checked({**empty, "query_id": parsed.get(names.query_id), "row": number}, id_types)
        yield {**row, "reason": "null_candidates", "field": None}
        return
    for item, candidate in enumerate(candidates, start=1):
        row = {
            "query_id": parsed.get(names.query_id),
            "query": parsed.get(names.query),
            "passage_id": candidate.get(names.passage_id),
            "passage": candidate.get(names.passage),
            "kept": kept_values(parsed, candidate, layout, schema, f"{file_range.file} line {number}"),
            "row": number,
            "item": item if _is_nested(parsed, layout) else None,
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
    columns, later = layout.columns, list[Row]()
    if isinstance(columns, TextColumns):
        title, optional = columns.title, columns.optional_title
        kept = set(layout.kept).difference(layout.exact)
        needed = [columns.id, columns.text, *([title] if title and not optional else [])]
        rest = _looked_through(others, sample, needed, later, to_end=bool(kept))
        every = common_types(chain(sample, rest))
        sample = [*sample, *later]
        types = common_types(sample) | {name: every[name] for name in kept & every.keys()}
        if title in types:
            types[title] = pa.string()
        elif optional:
            types[optional] = pa.null()  # which later lines may have
    else:
        types = common_types(chain(sample, _looked_through(others, sample, layout.ids, later, to_end=True)))
        sample = [*sample, *later]
    for name in set(layout.ids) & types.keys():
        values = [row[name] for row in sample if row.get(name) is not None]
        usable = Counter(type(value) for value in values if is_id_value(value))
        types[name] = id_type(usable) if usable else type_of(values[0] if values else None)
    return types


def _looked_through(
    rows: Iterator[Row], first: list[Row], needed: list[str], later: list[Row], *, to_end: bool
) -> Iterator[Row]:
    """The rows up to where each needed column has had a value, as Spark leaves out what is null; to_end: all.

    first: rows before these. later: gets the first row with a value of each column that had none in them.
    """
    lacking = {name for name in needed if all(row.get(name) is None for row in first)}
    while lacking or to_end:
        if (row := next(rows, None)) is None:
            return
        found = {name for name in lacking if row.get(name) is not None}
        if found:
            lacking -= found
            later.append(row)
        yield row
