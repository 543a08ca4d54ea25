"""The texts of a table that holds ids alone, in two files beside it: BEIR's JSON lines, or an id, a tab and a
text on each line.

A line that can't be used ends no job. It is a reject, and so is each candidate whose text is nowhere else.
"""

from collections.abc import Collection, Iterator
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.redaction import redacted
from pipeline.tables.input.beir import with_title
from pipeline.tables.input.cleaning import is_unicode
from pipeline.tables.input.json_rows import parse_object
from pipeline.tables.input.layout import Layout
from pipeline.tables.input.limits import Limits
from pipeline.tables.input.text_file import TextFile, open_text
from pipeline.tables.input.text_lines import is_tab_separated, object_lines, tab_separated
from pipeline.tables.schema import REASONS

Kind = Literal["query", "passage"]
KINDS: tuple[Kind, Kind] = ("query", "passage")
Row = dict[str, Any]


class TextLine(NamedTuple):
    """What a line says, or why it can't be used."""

    number: int
    id: str | None = None
    text: str | None = None
    """With its title. A line may say none, which is no mistake."""
    reason: str | None = None
    """And `field`: as in rejects."""
    field: str | None = None


def read_texts(url: str, limits: Limits, kind: Kind, wanted: Collection[str]) -> dict[str, str]:
    """Id to text, of the ids that are wanted and have one.

    Raises InputError where no line has a text, and for a wanted id that stands there twice.
    """
    texts: dict[str, str] = {}
    for line in _lines(url, limits, kind):
        if line.id is not None and line.text is not None and line.id in wanted:
            if line.id in texts:
                raise InputError(f"{url} line {line.number}: id {line.id!r} stands there a second time")
            texts[line.id] = line.text
    return texts


def unusable_texts(layout: Layout, schema: pa.Schema) -> pa.Table:
    """The lines of both files that can't be used. schema: that of rejects. Raises as `read_texts`."""
    rows = [
        {
            "file": redacted(url),
            "row": line.number,
            f"{kind}_id": line.id,
            "reason": line.reason,
            "field": line.field,
        }
        for url, kind in zip((layout.queries, layout.passages), KINDS, strict=True)
        if url is not None
        for line in _lines(url, layout.limits, kind)
        if line.reason is not None
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def _lines(url: str, limits: Limits, kind: Kind) -> Iterator[TextLine]:
    """Of all lines but blank ones. Raises InputError at the end where there are some, and none has a text."""
    first: TextLine | None = None
    has_text = False
    tabs = is_tab_separated(url)
    with open_text(url, limits) as file:
        for number, row in (_tab_separated if tabs else _json)(file):
            line = _line(number, row, kind)
            first, has_text = first or line, has_text or line.text is not None
            yield line
    if first is not None and not has_text:
        raise InputError(
            f"{url}: no line has a text that can be used; line {first.number}, the first one:"
            f" {REASONS[first.reason or f'null_{kind}']}. Write"
            f" {'an id, a tab and a text' if tabs else 'an object with _id and text'} on each line"
        )


def _json(file: TextFile) -> Iterator[tuple[int, Row | str]]:
    """(line number, object, or the reason why there is none)"""
    for _, number, line in object_lines(file):
        yield number, parse_object(line, number, file, {})


def _tab_separated(file: TextFile) -> Iterator[tuple[int, Row | str]]:
    for _, number, _, (text_id, *fields) in tab_separated(file, 0, None, 1):
        # A mark stands there where files were joined.
        row = {"_id": text_id.removeprefix("\ufeff") or None, "text": "\t".join(fields)}
        yield number, row if fields else "malformed_row"


def _line(number: int, row: Row | str, kind: Kind) -> TextLine:
    if isinstance(row, str):
        return TextLine(number, reason=row)
    text_id, title, text = (row.get(name) for name in ("_id", "title", "text"))
    if isinstance(text_id, int) and not isinstance(text_id, bool):
        text_id = str(text_id)  # a run's ids are text
    if text_id is None:
        return TextLine(number, reason=f"null_{kind}_id")
    if not isinstance(text_id, str):
        return TextLine(number, reason="invalid_id", field=f"{kind}_id")
    if not is_unicode(text_id):
        return TextLine(number, reason="invalid_text", field=f"{kind}_id")
    for name, value in (("title", title), (kind, text)):
        if value is not None and not (isinstance(value, str) and is_unicode(value)):
            return TextLine(number, text_id, reason="invalid_text", field=name)
    return TextLine(number, text_id, with_title(title, text))
