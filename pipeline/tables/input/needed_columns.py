"""The columns that a table must have where each row names its own, as JSON's do.

Spark leaves out what is null: a row may lack any of them, and so may all rows of a file. Where no row of the
table has one, the config names it wrongly.
"""

from typing import Any

from pipeline.errors import InputError
from pipeline.tables.input.layout import Layout, without_column
from pipeline.tables.input.shards import FileScan


class ColumnsOfFile:
    """Looks at the rows of one file."""

    def __init__(self, url: str, layout: Layout) -> None:
        names = layout.columns
        of_candidate = [names.passage_id, names.passage]
        self._of_row = _Sought(url, [names.query_id, names.query])
        self._flat = _Sought(url, of_candidate)
        self._nested = _Sought(f"{url}, in {names.candidates}", of_candidate)

    def see(self, row: dict[str, Any], nested: list[dict[str, Any]] | None) -> None:
        """nested: the candidates of a row that has a list, which may be none; None of any other row."""
        self._of_row.see(row)
        if nested is None:
            self._flat.see(row)
        else:
            for candidate in nested:
                self._nested.see(candidate)

    def needed(self) -> dict[str, str | None]:
        """As `FileScan.needed`."""
        told: dict[str, str | None] = {}
        for sought in (self._of_row, self._nested, self._flat):
            new = sought.told()
            told |= {name: new[name] for name in new if name not in told or new[name] is None}
        return told


class _Sought:
    """Columns that are looked for in rows of one kind."""

    def __init__(self, place: str, names: list[str]) -> None:
        self._place, self._found, self._lacking = place, list[str](), names
        self._present: list[str] | None = None
        """What the first row has."""

    def see(self, row: dict[str, Any]) -> None:
        if self._present is None:
            self._present = list(row)
        if self._lacking:
            self._found += [name for name in self._lacking if name in row]
            self._lacking = [name for name in self._lacking if name not in row]

    def told(self) -> dict[str, str | None]:
        """Nothing where no row was seen."""
        if self._present is None:
            return {}
        present = list(dict.fromkeys([*self._present, *self._found]))
        lacking = {name: without_column(self._place, name, present) for name in self._lacking}
        return {**dict.fromkeys(self._found), **lacking}


class ColumnsOfTable:
    """Gathers from the scans which columns some row has."""

    def __init__(self) -> None:
        self._lacking: dict[str, tuple[str, str] | None] = {}
        """Of each column that no row has so far: a file, and what to say."""

    def look(self, scan: FileScan) -> FileScan:
        """Pass the scan on."""
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
