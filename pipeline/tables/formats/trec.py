"""A TREC run (query Q0 passage rank score tag), its texts in two files beside it.

Each shard scans the two text files for the ids it needs: right for collections of up to some millions of
passages. A query's candidates come in the order of their scores, as trec_eval reads a run, whatever the ranks
say and however the lines stand. Columns to keep are rank, score and tag, and those of the path. Texts are
BEIR's queries.jsonl and corpus.jsonl, or MS MARCO's two-column .tsv.
"""

import math
from collections.abc import Iterable, Iterator

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.input.compression import with_compression
from pipeline.tables.input.files import SourceFile
from pipeline.tables.input.layout import Layout, WholeLayout, reading_schema, require_columns, scan_schema
from pipeline.tables.input.shards import FileRange, FileScan
from pipeline.tables.input.text_file import TextFile, open_text
from pipeline.tables.input.text_lines import (
    RunFinder,
    checked,
    first_line,
    numbered_lines,
)
from pipeline.tables.input.texts_beside import KINDS, Kind, read_texts
from pipeline.tables.input.traits import Traits
from pipeline.tables.input.trec_lines import RUN_FORM, run_line
from pipeline.tables.input.whole_table import Row, TableRows, TableScan, joined_chars, read_rows, scan_rows
from pipeline.tables.schema import FIRST_STAGE_SCORE

TRAITS = Traits(noun="a TREC run", holds_texts=False, columns_are_fixed=True, first_stage_score="score")
SUFFIXES = with_compression(".trec", ".run", ".txt")
_COLUMNS = {"rank": pa.int32(), "score": pa.float64(), "tag": pa.string()}


def is_like(first: bytes, _id_name: str) -> bool:
    return run_line(first_line(first)) is not None


def scan(file: SourceFile, layout: Layout) -> FileScan | None:
    columns = dict.fromkeys(file.partitions, pa.string()) | _COLUMNS
    require_columns(file.url, list(layout.kept.values()), list(columns), "output.keep_columns")
    runs, lines, good = RunFinder(), 0, 0
    with open_text(file.url, layout.limits) as text:
        for start, number, line in numbered_lines(text, 0, None, 1):
            entry = _entry(line)
            lines += 1
            good += entry is not None
            runs.add(entry and entry["query_id"], start, number)
        stop = text.tell()
    if not lines:
        return None
    if not good:
        raise InputError(f"{file.url}: holds no line of a TREC run: {RUN_FORM}")
    kept = {ours: columns[theirs] for ours, theirs in layout.kept.items()}
    return runs.scan(file, 0, 1, stop, scan_schema(pa.string(), pa.string(), kept))


def read(file_range: FileRange, layout: Layout, schema: pa.Schema) -> pa.Table:
    with open_text(file_range.file, layout.limits) as text:
        lines = numbered_lines(text, file_range.start, file_range.stop, file_range.first_row)
        entries = [(number, _entry(line)) for _, number, line in lines]
    present = [entry for _, entry in entries if entry is not None]
    queries, passages = (_texts(layout, kind, present) for kind in KINDS)
    rows = [
        _row(number, entry and {**file_range.partitions, **entry}, queries, passages, layout)
        for number, entry in entries
    ]
    table = pa.Table.from_pylist(rows, schema=reading_schema(schema))
    scores = [entry and entry["score"] for _, entry in entries]
    return table.append_column(FIRST_STAGE_SCORE, pa.array(scores, pa.float64()))


def scan_table(file: SourceFile, layout: WholeLayout) -> TableScan:
    types = {"query_id": pa.string(), "passage_id": pa.string(), **_COLUMNS}
    return scan_rows(file, rows, layout, lambda _sample, _others: types, joined_chars)


def read_table(file_range: FileRange, layout: WholeLayout, schema: pa.Schema) -> Iterator[TableRows]:
    return read_rows(file_range, rows, layout, schema)


def rows(text: TextFile) -> Iterator[tuple[int, Row | str]]:
    """(line number, entry) of every line, or the reason why it is none."""
    for _, number, line in numbered_lines(text, 0, None, 1):
        yield number, _entry(line) or "malformed_row"


def _entry(line: bytes) -> Row | None:
    """A line as a table's row, whose rank is a number and whose tag is text; None where it is none."""
    candidate = run_line(line)
    if candidate is None or math.isnan(candidate.score):  # which has no place among the others
        return None
    try:
        return {
            "query_id": candidate.query_id,
            "passage_id": candidate.passage_id,
            "rank": _rank(candidate.rank),
            "score": candidate.score,
            "tag": candidate.tag.decode() or None,
        }
    except ValueError:
        return None


def _rank(text: bytes) -> int:
    """An integer, also as pandas writes it of a column with a gap (3.0). Raises ValueError for none."""
    rank = float(text)
    if not (rank.is_integer() and abs(rank) < 2**31) or b"_" in text:
        raise ValueError
    return int(rank)


def _row(
    number: int, entry: Row | None, queries: dict[str, str], passages: dict[str, str], layout: Layout
) -> Row:
    columns = entry or {"query_id": None, "passage_id": None}
    row = {
        "query_id": columns["query_id"],
        "query": queries.get(columns["query_id"]),
        "passage_id": columns["passage_id"],
        "passage": passages.get(columns["passage_id"]),
        "kept": {ours: columns.get(theirs) for ours, theirs in layout.kept.items()},
        "row": number,
        "item": None,
    }
    if not entry:
        return {**row, "reason": "malformed_row"}
    lacks = (f"no_{kind}_text" for kind in KINDS if row[kind] is None)
    good = checked(row, (pa.string(), pa.string()))
    return {**good, "reason": good["reason"] or next(lacks, None)}


def _texts(layout: Layout, kind: Kind, entries: Iterable[Row]) -> dict[str, str]:
    """Of these entries, by id; empty ones where they are not to be read."""
    url = layout.queries if kind == "query" else layout.passages
    wanted = {entry[f"{kind}_id"] for entry in entries}
    return dict.fromkeys(wanted, "") if url is None else read_texts(url, layout.limits, kind, wanted)
