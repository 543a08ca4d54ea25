"""BEIR's tables of texts have `_id`, `text` and, of passages, a `title`.

What a model reads is the title and the text with a space between them, or the text alone where the title is
empty, as BEIR does. The rule stands here for one text and for a column of them.
"""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.tables.input.cleaning import valid_text


def with_title(title: str | None, text: str | None) -> str | None:
    """One text; a null title is empty, a null text stays null."""
    return f"{title} {text}".strip() if title and text is not None else text


def with_titles(titles: pa.Array, texts: pa.Array) -> pa.Array:
    """A column of them."""
    both = pc.binary_join_element_wise(titles, texts, " ")
    try:
        both = pc.utf8_trim_whitespace(both)
    except pa.ArrowInvalid:  # of what is no text, which is refused by its row where rows are cleaned
        good = pa.array(valid_text(both))
        both = pc.if_else(good, pc.utf8_trim_whitespace(pc.if_else(good, both, "")), both)
    return pc.if_else(pc.fill_null(pc.equal(titles, ""), True), texts, both)
