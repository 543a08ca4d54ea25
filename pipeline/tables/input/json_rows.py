"""Rows of JSON lines, for the formats that read them: the object on a line, and the columns that are kept."""

from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.input.json_values import as_type, check_depth, parse
from pipeline.tables.input.layout import Layout
from pipeline.tables.input.partitions import Partitions
from pipeline.tables.input.text_file import TextFile


def parse_object(line: bytes, number: int, text: TextFile, partitions: Partitions) -> dict[str, Any] | str:
    """The object on the line with what its path adds, or the reason why there is none."""
    check_depth(line, f"{text.url} line {number}", text.limits)
    try:
        value = parse(line)
    except UnicodeDecodeError:
        return "invalid_text"
    except ValueError:  # also a key that stands twice, an integer of thousands of digits
        return "malformed_row"
    return partitions | value if isinstance(value, dict) else "malformed_row"


def kept_values(
    row: dict[str, Any], candidate: dict[str, Any], layout: Layout, schema: pa.Schema, place: str
) -> dict[str, Any]:
    """The columns that pass through, the candidate's own before its row's.

    Raises InputError for a value that the column's type can't hold.
    """
    kept = {}
    for field in schema.field("kept").type:
        theirs = layout.kept[field.name]
        try:
            kept[field.name] = as_type(candidate.get(theirs, row.get(theirs)), field.type)
        except ValueError as error:
            raise InputError(f"{place}: {theirs}: {error}") from error
    return kept
