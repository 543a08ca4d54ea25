"""Training rows as FlagEmbedding's trainer reads them: a folder of JSON lines, a row a query.

OUTPUT/training_rows/NAME.jsonl: query, pos, neg (lists of texts), pos_scores, neg_scores (a teacher's, for
its `knowledge_distillation`), and prompt, query_prompt, passage_prompt, type where columns of these names
are kept
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.schema import is_text

FOLDER = "training_rows"
FIELDS = ("prompt", "query_prompt", "passage_prompt", "type")
"""What else the trainer takes from a row."""

Scored = tuple[str, float]
"""A passage's text, and its score."""


def training_rows_file(name: str) -> str:
    """Of a shard, by its name in the output. The trainer reads no file of another ending."""
    return f"{FOLDER}/{name}.jsonl"


def check_kept(types: pa.StructType) -> None:
    """Raises InputError where a kept column goes into the rows and is no text. types: of the kept columns."""
    for name in FIELDS:
        if (at := types.get_field_index(name)) < 0:
            continue
        kind = types.field(at).type
        if not (is_text(kind) or pa.types.is_null(kind)):
            raise InputError(
                f"output.keep_columns: {name!r} holds {kind}, and a trainer takes a text of that name from a"
                " training row; keep it under another name",
                field="output.keep_columns",
            )


def training_row(query: str, pos: Sequence[Scored], neg: Sequence[Scored], kept: Mapping[str, Any]) -> bytes:
    """A line. pos and neg: not empty, which the trainer would die of; kept: columns of the query's rows."""
    assert pos, query
    assert neg, query
    row: dict[str, Any] = {"query": query}
    row |= {side: [text for text, _ in scored] for side, scored in (("pos", pos), ("neg", neg))}
    for side, scored in (("pos", pos), ("neg", neg)):
        # Nine digits tell every float32 from its neighbours.
        row[f"{side}_scores"] = [float(f"{score:.9g}") for _, score in scored]
    row |= {name: kept[name] for name in FIELDS if kept.get(name) is not None}
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"
