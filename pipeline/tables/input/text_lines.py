"""What the text formats share: where each query's lines stand, and rows with the ids and texts checked."""

from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import log
from pipeline.errors import InputError
from pipeline.tables.input.cleaning import is_int64, is_unicode
from pipeline.tables.input.compression import with_compression
from pipeline.tables.input.files import SourceFile
from pipeline.tables.input.shards import FileScan
from pipeline.tables.input.text_file import TextFile
from pipeline.tables.storage import named_by


class _Runs:
    """Of lines with ids of one type."""

    def __init__(self, pairs_before: int) -> None:
        """pairs_before: in lines before the first run, which go with it."""
        self.ids: list[Any] = []
        self.starts: list[int] = []
        self.rows: list[int] = []
        self.pairs: list[int] = []
        self.lines = 0
        self._pairs_before = pairs_before

    def add(self, query_id: object, start: int, row: int, pairs: int) -> None:
        self.lines += 1
        if not self.ids or self.ids[-1] != query_id:
            self.ids.append(query_id)
            self.starts.append(start)
            self.rows.append(row)
            self.pairs.append(0 if self.pairs else self._pairs_before)
        self.pairs[-1] += pairs


class RunFinder:
    """Gathers runs of lines with the same query id; places are bytes."""

    def __init__(self) -> None:
        self._by_type: dict[type, _Runs] = {}
        self._pairs = 0

    def add(self, query_id: object, start: int, row: int, pairs: int = 1) -> None:
        """A line at byte `start`, number `row`.

        An id that is no text or 64-bit integer, or of another type than most, makes no run: its line goes
        with the run before it, to be rejected when it is read.
        """
        own = None
        if is_id_value(query_id):
            own = self._by_type.setdefault(type(query_id), _Runs(self._pairs))
            own.add(query_id, start, row, pairs)
        for runs in self._by_type.values():
            if runs is not own:
                runs.pairs[-1] += pairs
        self._pairs += pairs

    @property
    def id_type(self) -> pa.DataType:
        """That of most ids, and of the first where two have as many. Null where no line has an id."""
        return id_type({kind: runs.lines for kind, runs in self._by_type.items()})

    def scan(
        self,
        file: SourceFile,
        start: int,
        row: int,
        stop: int,
        schema: pa.Schema,
        needed: dict[str, str | None] | None = None,
    ) -> FileScan:
        """The scan of a file whose first line, `row`, is at byte `start`, and which ends at `stop`.

        needed: `FileScan.needed`.
        """
        runs = max(self._by_type.values(), key=lambda each: each.lines, default=_Runs(self._pairs))
        ids = pa.array(runs.ids or [None], self.id_type)
        starts, rows = np.array(runs.starts or [start], np.int64), np.array(runs.rows or [row], np.int64)
        starts[0], rows[0] = start, row
        pairs = np.array(runs.pairs or [self._pairs], np.int64)
        return FileScan(file, ids, starts, rows, pairs, stop, schema, needed=needed or {})


def id_type(numbers: Mapping[type, int]) -> pa.DataType:
    """Of a column of ids, by how many are of each type: one odd row shall not decide for all others."""
    if not numbers:
        return pa.null()
    return pa.int64() if max(numbers, key=numbers.__getitem__) is int else pa.string()


def numbered_lines(
    file: TextFile, start: int, stop: int | None, row: int
) -> Iterator[tuple[int, int, bytes]]:
    """(byte, number, line) of the lines that begin in [start, stop); `row` is the number of the first.

    Blank lines are passed over, and byte order marks.
    """
    for place, number, line in all_lines(file, start, stop, row):
        content = without_mark(line)
        if content.strip():
            yield place, number, content


def object_lines(text: TextFile) -> Iterator[tuple[int, int, bytes]]:
    """Of JSON lines, as `numbered_lines`.

    Raises InputError for a JSON list with a row a line, of which the last alone would be one.
    """
    is_first = True
    for start, number, line in numbered_lines(text, 0, None, 1):
        if is_first and line.lstrip().startswith(b"[") and line.rstrip().endswith((b"[", b",")):
            raise InputError(
                f"{text.url}: begins with `[`, as a JSON list of rows does; write an object on each line:"
                " jq -c '.[]' OLD > NEW"
            )
        is_first = False
        yield start, number, line


class Quotes:
    """Counts lines of a tab-separated file whose fields stand in quotation marks: they are read as text."""

    def __init__(self, url: str) -> None:
        self._url, self._lines = url, 0

    def see(self, fields: Iterable[object]) -> None:
        self._lines += any(_is_quoted(value) for value in fields if isinstance(value, str))

    def tell(self) -> None:
        if self._lines:
            log.warning(
                "quotation marks around fields are read as text",
                file=self._url,
                lines=self._lines,
                why="a .tsv has no quoting: write the table without quotes, or as .csv or Parquet",
            )


def _is_quoted(field: str) -> bool:
    """As CSV writers put a field that holds a quotation mark, which they double."""
    inside = field[1:-1]
    return field[:1] == field[-1:] == '"' and '""' in inside and '"' not in inside.replace('""', "")


def first_line(first: bytes) -> bytes:
    """Of what a file begins with, the first line that is not blank, without its end."""
    return next((line for line in without_mark(first).splitlines() if line.strip()), b"")


def is_tab_separated(url: str) -> bool:
    return named_by(url).lower().endswith(with_compression(".tsv"))


def tab_separated(
    file: TextFile, start: int, stop: int | None, row: int
) -> Iterator[tuple[int, int, int, list[str]]]:
    """(byte, number, byte of the next, fields) of such lines. There are no quotes: a text is as it stands.

    Undecodable bytes become lone surrogates, for `checked` to find.
    """
    for place, number, line in all_lines(file, start, stop, row):
        text = (line if place else without_mark(line)).rstrip(b"\r\n")
        if text.strip(b" "):  # tabs alone are a row of nulls
            yield place, number, place + len(line), text.decode(errors="surrogateescape").split("\t")


def refuse_header(url: str, number: int, header: Sequence[str], fields: Sequence[str]) -> None:
    """Raises InputError where a record is the header once more, as in files that were joined into one."""
    if fields[0].removeprefix("\ufeff") in header:
        again = [fields[0].removeprefix("\ufeff"), *fields[1:]]
        if sorted(again) == sorted(header):
            raise InputError(
                f"{url} line {number}: the column names stand here again, as if files were joined; remove the"
                " line"
            )


def without_mark(line: bytes) -> bytes:
    """A line without the byte order mark that a file, or a part of a joined one, begins with.

    Where a text may stand at the start of a line, it is a mark in the file's first line alone.
    """
    return line.removeprefix(BOM_UTF8)


def all_lines(file: TextFile, start: int, stop: int | None, row: int) -> Iterator[tuple[int, int, bytes]]:
    """As `numbered_lines`, with the blank ones, line ends and marks."""
    file.seek(start)
    place = start
    while stop is None or place < stop:
        line = file.line(row)
        if not line:
            return
        yield place, row, line
        place += len(line)
        row += 1


def checked(row: dict[str, Any], id_types: tuple[pa.DataType, pa.DataType]) -> dict[str, Any]:
    """The row with what Arrow can't hold made null, the `reason` to refuse it and the `field`, or null.

    Nulls are left to cleaning. Lone surrogates, which JSON escapes and undecodable bytes turn into, are no
    text, in kept columns neither.
    """
    wrong: list[tuple[str, str]] = []
    values = dict(row)
    for name, id_type in zip(("query_id", "passage_id"), id_types, strict=True):
        value = row[name]
        fits = is_int64(value) if pa.types.is_integer(id_type) else isinstance(value, str)
        if value is not None and not fits:
            values[name] = None
            wrong.append(("invalid_id", name))
    for name in ("query_id", "query", "passage_id", "passage"):
        value = row[name]
        is_text = isinstance(value, str) or name.endswith("_id")
        if value is not None and not (is_text and _holds_text(value)):
            values[name] = None
            wrong.append(("invalid_text", name))
    for name, value in (row["kept"] or {}).items():
        if not _holds_text(value):
            values["kept"] = None
            wrong.append(("invalid_text", name))
    reason, field = wrong[0] if wrong else (None, None)
    return {**values, "reason": reason, "field": field}


def is_id_value(value: object) -> bool:
    """Whether it can be an id: a text, or an integer of 64 bits."""
    return is_int64(value) or (isinstance(value, str) and is_unicode(value))


def _holds_text(value: object) -> bool:
    return not isinstance(value, str) or is_unicode(value)
