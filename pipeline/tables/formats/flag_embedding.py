"""FlagEmbedding's training rows, JSON lines of query, pos and neg: a query's positives and negatives are its
candidates, for a teacher to score.

Rows have no ids. A query's is where its row stands in the table, FILE:LINE (FILE as seen from the table's
directory), so that rows with equal queries, and equal rows, stay apart; a passage's is its place in the row:
pos:1, neg:1, neg:2, ... Columns to keep are `label` (1 for pos, 0 for neg), `score` (the given one), and
whatever else a row holds: prompt, type, ...
"""

import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.input.compression import with_compression
from pipeline.tables.input.files import SourceFile
from pipeline.tables.input.json_rows import kept_values, parse_object
from pipeline.tables.input.json_values import common_type, type_of
from pipeline.tables.input.layout import Layout, reading_schema, scan_schema
from pipeline.tables.input.needed_columns import kept_columns
from pipeline.tables.input.shards import FileRange, FileScan
from pipeline.tables.input.text_file import TextFile, open_text
from pipeline.tables.input.text_lines import RunFinder, checked, first_line, numbered_lines
from pipeline.tables.input.training_row import QUERY, candidates_of
from pipeline.tables.input.traits import Traits
from pipeline.tables.schema import REASONS
from pipeline.tables.storage import named_by

TRAITS = Traits(noun="a table of training rows", rows_name_columns=True, columns_are_fixed=True)
SUFFIXES = with_compression(".jsonl", ".ndjson", ".json")

_Row = dict[str, Any]
_Candidates = list[_Row]


def is_like(first: bytes, _id_name: str) -> bool:
    line = first_line(first)
    return line.startswith(b"{") and all(name in line for name in (b'"query"', b'"pos"'))


def scan(file: SourceFile, layout: Layout) -> FileScan | None:
    name, runs = _name_in_table(file.url, layout.root), RunFinder()
    kept: dict[str, pa.DataType] = dict.fromkeys(layout.kept, pa.null())
    sought, reasons, good = kept_columns(file.url, layout), list[str](), 0
    with open_text(file.url, layout.limits) as text:
        for start, number, line in numbered_lines(text, 0, None, 1):
            row, candidates = _parsed(line, number, text, file.partitions)
            if isinstance(candidates, str):
                reasons = reasons or [candidates]
                runs.add(_query_id(name, number), start, number)
                continue
            good += 1
            runs.add(_query_id(name, number), start, number, len(candidates))
            for candidate in candidates:
                sought.see({**row, **candidate})
                for ours, theirs in layout.kept.items():
                    kept[ours] = common_type(kept[ours], type_of(candidate.get(theirs, row.get(theirs))))
        stop = text.tell()
    if not (good or reasons):
        return None
    if not good:
        raise InputError(
            f"{file.url}: holds no row of query, pos and neg (the first one: {REASONS[reasons[0]]}); is"
            " input.format right?"
        )
    return runs.scan(file, 0, 1, stop, scan_schema(pa.string(), pa.string(), kept), sought.told())


def read(file_range: FileRange, layout: Layout, schema: pa.Schema) -> pa.Table:
    name, rows = _name_in_table(file_range.file, layout.root), list[_Row]()
    with open_text(file_range.file, layout.limits) as text:
        for _, number, line in numbered_lines(text, file_range.start, file_range.stop, file_range.first_row):
            row, candidates = _parsed(line, number, text, file_range.partitions)
            own = {"query_id": _query_id(name, number), "row": number}
            if isinstance(candidates, str):
                rows.append({**own, "reason": candidates})
            else:
                place = f"{file_range.file} line {number}"
                rows += (
                    checked({**own, **each}, (pa.string(), pa.string()))
                    for each in _rows(row, candidates, layout, schema, place)
                )
    return pa.Table.from_pylist(rows, schema=reading_schema(schema))


def _parsed(
    line: bytes, number: int, text: TextFile, partitions: dict[str, str | None]
) -> tuple[_Row, _Candidates | str]:
    """The row on a line with its candidates, or the reason to refuse it."""
    row = parse_object(line, number, text, partitions)
    return ({}, row) if isinstance(row, str) else (row, candidates_of(row))


def _rows(
    row: _Row, candidates: _Candidates, layout: Layout, schema: pa.Schema, place: str
) -> Iterator[_Row]:
    for item, candidate in enumerate(candidates, start=1):
        yield {
            "query": row.get(QUERY),
            "passage_id": candidate["passage_id"],
            "passage": candidate["passage"],
            "kept": kept_values(row, candidate, layout, schema, place),
            "item": item,
        }


def _query_id(name: str, number: int) -> str:
    return f"{name}:{number}"


def _name_in_table(url: str, root: str) -> str:
    """A file's path as seen from the table's directory, which is the same wherever that lies."""
    file, folder = named_by(url), f"{root}/"
    if not file.startswith(folder):  # a single file, or one of a glob
        folder = f"{re.split(r'[*?[]', named_by(root))[0].rpartition('/')[0]}/"
    return file.removeprefix(folder)
