"""BEIR's tables of texts: a line an object with `_id`, `text` and, of passages, a `title`.

What a model reads is the title and the text with a space between them, or the text alone where the title is
empty, as BEIR does. The rule stands here for one text and for a column of them.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.tables.input.cleaning import valid_text
from pipeline.tables.input.json_values import check_depth, parse
from pipeline.tables.input.limits import Limits


def with_title(title: Any, text: Any) -> Any:
    """One text. What is none stays as it is, for `checked` to find: null, a text or title of another type."""
    if title is None or title == "" or not isinstance(text, str):
        return text
    return f"{title} {text}".strip() if isinstance(title, str) else title


def with_titles(titles: pa.Array, texts: pa.Array) -> pa.Array:
    """A column of them; a null title is empty, a null text stays null."""
    both = pc.binary_join_element_wise(titles, texts, " ")
    try:
        both = pc.utf8_trim_whitespace(both)
    except pa.ArrowInvalid:  # of what is no text, which is refused by its row where rows are cleaned
        good = pa.array(valid_text(both))
        both = pc.if_else(good, pc.utf8_trim_whitespace(pc.if_else(good, both, "")), both)
    return pc.if_else(pc.fill_null(pc.equal(titles, ""), True), texts, both)


def json_texts(
    numbered: Iterable[tuple[int, bytes]], url: str, limits: Limits
) -> Iterator[tuple[int, str, Any]]:
    """(line number, id, title and text) of each line. Raises InputError for one of another form.

    An id that is an integer is found by its digits: a run's ids are text.
    """
    for number, line in numbered:
        check_depth(line, f"{url} line {number}", limits)
        try:
            row = parse(line)
            text_id, text = row["_id"], with_title(row.get("title"), row["text"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{url} line {number}: not an object with _id and text: {error!r}") from error
        if isinstance(text_id, bool) or not isinstance(text_id, str | int):
            raise InputError(f"{url} line {number}: _id is {text_id!r}; a text or an integer is needed")
        yield number, str(text_id), text
