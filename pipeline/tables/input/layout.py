"""How a table's columns map to ours: what a format needs to know to read it."""

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.input.columns import ColumnNames, TextColumns
from pipeline.tables.input.limits import DEFAULT_LIMITS, Limits
from pipeline.tables.schema import candidates_schema

OF_CANDIDATES = "input.columns"


@dataclass(frozen=True)
class Layout:
    """Of a candidate table."""

    columns: ColumnNames
    kept: dict[str, str]
    """Pass-through columns: the name in the run, the name in the input."""
    declared: pa.Schema | None = None
    """The columns of a table that declares them whatever each of its files holds."""
    queries: str | None = None
    """Where the queries' texts lie, for a format that holds ids alone; `passages` likewise. None: they are
    not read, each is empty."""
    passages: str | None = None
    limits: Limits = DEFAULT_LIMITS
    root: str = ""
    """What the table's path means, absolute: a file, a directory or a glob."""


@dataclass(frozen=True)
class WholeLayout:
    """Of a table that is read whole."""

    field: str
    """Where the config names the table: candidates, queries or passages."""
    columns: ColumnNames | TextColumns
    header: tuple[str, ...] | None = None
    """The columns' names, where the files do not tell them."""
    limits: Limits = DEFAULT_LIMITS
    kept: tuple[str, ...] = ()
    """Columns beside ids and texts that are passed through: their types are those of all rows."""
    declared: pa.Schema | None = None
    """As of `Layout`."""

    @property
    def exact(self) -> list[str]:
        """The columns that hold ids and texts, whose values are never made into ones of another type."""
        return [name for name in self.columns.model_dump().values() if name is not None]

    def read(self, names: list[str]) -> list[str]:
        """Those of a table's columns that are read: of candidates all."""
        if isinstance(self.columns, ColumnNames):
            return names
        return [name for name in names if name in {*self.exact, *self.kept}]

    @property
    def ids(self) -> list[str]:
        """The columns that hold ids."""
        if isinstance(self.columns, TextColumns):
            return [self.columns.id]
        return [self.columns.query_id, self.columns.passage_id]


def scan_schema(query_id: pa.DataType, passage_id: pa.DataType, kept: dict[str, pa.DataType]) -> pa.Schema:
    """What a scan tells of a file's types: query_id, passage_id, and the kept columns as a struct."""
    return pa.schema(
        [("query_id", query_id), ("passage_id", passage_id), ("kept", pa.struct(list(kept.items())))]
    )


def reading_schema(scan: pa.Schema) -> pa.Schema:
    """What a format's `read` gives, for a table of these types: candidates, with the reader's refusals."""
    candidates = candidates_schema(*(scan.field(name).type for name in ("query_id", "passage_id", "kept")))
    return candidates.append(pa.field("reason", pa.string())).append(pa.field("field", pa.string()))


def refuse_repeated(url: str, names: list[str]) -> None:
    """Raises InputError naming the file and the first column that stands in it twice."""
    repeated = next((name for name, times in Counter(names).items() if times > 1), None)
    if repeated is not None:
        raise InputError(f"{url}: column {repeated!r} stands there twice; rename one, or drop it")


def require_columns(url: str, needed: list[str], present: list[str], field: str = OF_CANDIDATES) -> None:
    """Raises InputError naming the file and the first column that it lacks."""
    missing = [name for name in needed if name not in present]
    if missing:
        raise InputError(without_column(url, missing[0], present, field))


def without_column(url: str, name: str, present: list[str], field: str = OF_CANDIDATES) -> str:
    """What to say of a file that has these columns and not the one that is needed."""
    joined = ", or join texts of other tables to its ids by pipeline.prepare"
    return (
        f"{url}: no column {name!r}; it has {', '.join(present)}."
        f" Name the table's own columns in {field}{joined if field == OF_CANDIDATES else ''}"
    )
