"""The columns that a table must have where each row names its own, as JSON's do.

Spark leaves out what is null: a row may lack any of them. Every file must have a row with a query's columns,
else it is none of the table. A file may have no candidates, or none with a column that is kept: one row of
the table must have these.
"""

from typing import Any

from pipeline.errors import InputError
from pipeline.tables.input.layout import OF_CANDIDATES, Layout, require_columns, without_column
from pipeline.tables.input.shards import FileScan


class ColumnsOfFile:
    """Looks at the rows of one file."""

    def __init__(self, url: str, layout: Layout) -> None:
        names = layout.columns
        of_candidate = [names.passage_id, names.passage]
        self._of_row = Sought(url, [names.query_id, names.query])
        self._flat = Sought(url, of_candidate)
        self._nested = Sought(f"{url}, in {names.candidates}", of_candidate)
        self._kept = kept_columns(url, layout)

    def see(self, row: dict[str, Any], nested: list[dict[str, Any]] | None) -> None:
        """nested: the candidates of a row that has a list, which may be none; None of any other row."""
        self._of_row.see(row)
        if nested is None:
            self._flat.see(row)
            self._kept.see(row)
        else:
            self._kept.see(row)
            for candidate in nested:
                self._nested.see(candidate)
                self._kept.see(candidate)

    def needed(self) -> dict[str, str | None]:
        """`FileScan.needed`. Raises InputError for a column of the queries that no row has."""
        self._of_row.check()
        nested, flat = self._nested.told(), self._flat.told()
        found = {name: None for name in flat if flat[name] is None}
        return {**flat, **nested, **found} | self._kept.told()


class Sought:
    """Columns that are looked for in rows of one kind."""

    def __init__(self, place: str, names: list[str], field: str = OF_CANDIDATES) -> None:
        """field: of the config, which names them."""
        self._place, self._names, self._field, self._lacking = place, names, field, names
        self._present: dict[str, None] = {}
        """What the first row has, and what later ones have of these columns."""

    def see(self, row: dict[str, Any]) -> None:
        if not self._present:
            self._present = dict.fromkeys(row)
        if self._lacking:
            self._present |= dict.fromkeys(name for name in self._lacking if name in row)
            self._lacking = [name for name in self._lacking if name not in row]

    def check(self) -> None:
        require_columns(self._place, self._names, list(self._present), self._field)

    def told(self) -> dict[str, str | None]:
        """As `FileScan.needed`; nothing where no row was seen."""
        if not self._present:
            return {}
        present = list(self._present)
        told = {name: without_column(self._place, name, present, self._field) for name in self._lacking}
        return {name: told.get(name) for name in self._names}


def kept_columns(url: str, layout: Layout) -> Sought:
    return Sought(url, list(layout.kept.values()), "output.keep_columns")


class ColumnsOfTable:
    """Gathers from the scans which columns some row has, and whether there is any candidate."""

    def __init__(self) -> None:
        self.has_candidates = False
        self._lacking: dict[str, tuple[str, str] | None] = {}
        """Of each column that no row has so far: a file, and what to say."""

    def look(self, scan: FileScan) -> FileScan:
        """Pass the scan on."""
        self.has_candidates |= scan.has_candidates
        for name, told in scan.needed.items():
            if told is None:
                self._lacking[name] = None
            else:
                self._lacking.setdefault(name, (scan.file.url, told))
        return scan

    def lacking(self) -> tuple[str, InputError] | None:
        """A column that no row has, as a file without it and what to raise."""
        first = next((each for each in self._lacking.values() if each is not None), None)
        return None if first is None else (first[0], InputError(first[1]))
