"""How a table's columns map to ours: what a format needs to know to read it."""

from dataclasses import dataclass

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.input.config import ColumnNames, InputConfig
from pipeline.tables.schema import candidates_schema


@dataclass(frozen=True)
class Layout:
    input: InputConfig
    kept: dict[str, str]
    """Pass-through columns: the name in the run, the name in the input."""
    declared: pa.Schema | None = None
    """The columns of a table that declares them whatever each of its files holds."""

    @property
    def columns(self) -> ColumnNames:
        return self.input.columns


def scan_schema(query_id: pa.DataType, passage_id: pa.DataType, kept: dict[str, pa.DataType]) -> pa.Schema:
    """What a scan tells of a file's types: query_id, passage_id, and the kept columns as a struct."""
    return pa.schema(
        [("query_id", query_id), ("passage_id", passage_id), ("kept", pa.struct(list(kept.items())))]
    )


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type for JSON values of both types: numbers as numbers, all else as text."""
    if pa.types.is_null(other) or one == other:
        return one
    if pa.types.is_null(one):
        return other
    return pa.float64() if {one, other} == {pa.int64(), pa.float64()} else pa.string()


def reading_schema(scan: pa.Schema) -> pa.Schema:
    """What a format's `read` gives, for a table of these types: candidates, with the reader's refusals."""
    candidates = candidates_schema(*(scan.field(name).type for name in ("query_id", "passage_id", "kept")))
    return candidates.append(pa.field("reason", pa.string()))


def require_columns(url: str, needed: list[str], present: list[str], field: str = "input.columns") -> None:
    """Raises InputError naming the file and the first column that it lacks."""
    missing = [name for name in needed if name not in present]
    if missing:
        raise InputError(
            f"{url}: no column {missing[0]!r}; it has {', '.join(present)}."
            f" Name the table's own columns in {field}"
        )
