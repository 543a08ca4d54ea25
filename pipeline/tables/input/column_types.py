"""Pure: the types that all files of a candidate table agree on."""

from collections.abc import Iterator

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.input import arrow_types, json_values
from pipeline.tables.input.layout import scan_schema
from pipeline.tables.input.numeric_columns import may_hold_numbers
from pipeline.tables.input.shards import FileScan


class ColumnTypes:
    """The types that all files agree on."""

    def __init__(self, names: dict[str, str], *, lenient: bool) -> None:
        """names: ours to the table's; lenient: kept values of any types have one in common, as JSON's do."""
        self._names, self._lenient = names, lenient
        self._types: dict[str, pa.DataType] = {}
        self._places: dict[str, str] = {}
        """Of each column, the file whose type it has."""
        self._seen: pa.Schema | None = None
        self._untold: dict[str, pa.DataType] = {}
        """What a column that may turn out to hold no value was given for a type, by the first file."""

    def add(self, scan: FileScan) -> FileScan:
        """Pass the scan on. Raises InputError where its types and the other files' have none in common."""
        self._untold = scan.untold | self._untold
        if scan.schema == self._seen:
            return scan
        self._seen = scan.schema
        for name, kind in _columns(scan.schema):
            known = self._types.setdefault(name, kind)
            place = self._places.setdefault(name, scan.file.url)
            together = self._together(name, known, kind)
            if together is None:
                raise InputError(
                    f"{scan.file.url}: column {self._names[name]!r} is {kind}, and {known} in {place};"
                    " write it in one type"
                )
            if together != known:
                self._types[name], self._places[name] = together, scan.file.url
        return scan

    def _together(self, name: str, known: pa.DataType, kind: pa.DataType) -> pa.DataType | None:
        if self._lenient and name not in ("query_id", "passage_id"):
            return json_values.common_type(known, kind)
        return arrow_types.common_type(known, kind)

    def check_scores(self, name: str, path: str) -> None:
        """Raises InputError where no row can have a score in this kept column. path: of the table."""
        kind = self._types[name]
        if not may_hold_numbers(kind):
            held = "no value in any row" if pa.types.is_null(kind) else f"{kind}, which is no number"
            raise InputError(
                f"{path}: column {self._names[name]!r} holds {held}; the first stage's scores are needed in"
                " it. Name the table's own columns in output.keep_columns"
            )

    def schema(self) -> pa.Schema:
        """Of the whole table; a column without any value is what a file says, or text."""
        types = {
            name: self._untold.get(name, pa.string()) if pa.types.is_null(kind) else kind
            for name, kind in self._types.items()
        }
        return scan_schema(types.pop("query_id"), types.pop("passage_id"), types)


def _columns(schema: pa.Schema) -> Iterator[tuple[str, pa.DataType]]:
    for each in (schema.field("query_id"), schema.field("passage_id"), *schema.field("kept").type):
        yield each.name, each.type
