"""What a table format is, and which there are.

A format is one module in `formats/`. Its file is all that it takes: nothing else lists it. What it can do is
what it has: `scan` and `read` make it one of candidate tables, `scan_table` and `read_table` one that
is read whole; `SUFFIXES` or `snapshot` tell how its files are found, `TRAITS` what sets it apart.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.registry import load, names_in
from pipeline.tables import formats
from pipeline.tables.input.files import SourceFile, find_file, open_input
from pipeline.tables.input.layout import Layout, WholeLayout
from pipeline.tables.input.limits import DEFAULT_LIMITS
from pipeline.tables.input.shards import FileRange, FileScan
from pipeline.tables.input.snapshot import Snapshot
from pipeline.tables.input.traits import Traits
from pipeline.tables.input.whole_table import TableRows, TableScan

_LOOKED_AT_BYTES = 1 << 16


@runtime_checkable
class Format(Protocol):
    """A module in `formats/`."""

    TRAITS: Traits


@runtime_checkable
class FileFormat(Format, Protocol):
    """Its tables are files, found by their names."""

    SUFFIXES: tuple[str, ...]
    """Endings of the files that a directory is searched for, in lower case."""

    def is_like(self, first: bytes, id_name: str, /) -> bool:
        """Whether a file of another name, or none, that begins so holds rows of this format.

        id_name: the column that every such table has.
        """


@runtime_checkable
class SnapshotFormat(Format, Protocol):
    """Its tables know their files themselves, and the versions they had."""

    def snapshot(self, url: str, version: int | None, /) -> Snapshot:
        """The files of one version, None for the latest. Raises InputError for what is no such table."""


@runtime_checkable
class CandidateFormat(Format, Protocol):
    """Candidate tables, which are read shard by shard. Also a FileFormat or a SnapshotFormat."""

    def scan(self, file: SourceFile, layout: Layout, /) -> FileScan | None:
        """Where the file's queries stand; None where it holds no rows, whatever its columns.

        Raises InputError for a file that is not what it should be.
        """

    def read(self, file_range: FileRange, layout: Layout, schema: pa.Schema, /) -> pa.Table:
        """The rows of a stretch of a file, of `layout.reading_schema(schema)`, every one that is not deleted.

        Of a format whose own column tells how good the first stage found each, with FIRST_STAGE_SCORE.
        """


@runtime_checkable
class WholeFormat(Format, Protocol):
    """Tables that are read whole, whatever columns they hold. Also a FileFormat or a SnapshotFormat."""

    def scan_table(self, file: SourceFile, layout: WholeLayout, /) -> TableScan:
        """A file's types and size, at the cost of a look. Raises InputError where it can't be read."""

    def read_table(
        self, file_range: FileRange, layout: WholeLayout, schema: pa.Schema, /
    ) -> Iterator[TableRows]:
        """The columns of `schema`, every row of them that is not deleted, in batches that are not empty.

        A row that is not of the table's form, and an id or a text of another type, is there with a refusal.
        """


def candidate_formats() -> dict[str, CandidateFormat]:
    """Every format of candidate tables, by its name. Imports all formats, and no library that they need."""
    return {name: module for name, module in _all().items() if isinstance(module, CandidateFormat)}


def whole_formats() -> dict[str, WholeFormat]:
    """Every format of tables that are read whole, by its name."""
    return {name: module for name, module in _all().items() if isinstance(module, WholeFormat)}


def candidate_format(name: str) -> CandidateFormat:
    """The format of that name, which a config has let pass."""
    module = load(formats, name)
    assert isinstance(module, CandidateFormat), name
    return module


def format_named(name: str) -> Format:
    """The format of that name, whatever it can do."""
    module = load(formats, name)
    assert isinstance(module, Format), name
    return module


def whole_format(name: str) -> WholeFormat:
    module = load(formats, name)
    assert isinstance(module, WholeFormat), name
    return module


def advised(error: InputError, file: str | None, name: str, id_name: str, field: str) -> InputError:
    """The error of a file that format `name` could not read, with advice where another format is likely.

    file: None where there is none; field: the config's, that names the table. Where the store is away, or
    refuses, the file is not asked for again.
    """
    told, advice = str(error), ""
    if file is not None and isinstance(error.__cause__, pa.ArrowInvalid | None):
        advice = _advice(file, name, id_name, field)
    return InputError(with_advice(told, advice))


def with_advice(told: str, advice: str) -> str:
    """One more sentence, where there is one."""
    return " ".join([told if told.endswith((".", "?")) else f"{told}.", advice]) if advice else told


def _advice(url: str, name: str, id_name: str, field: str) -> str:
    known: Mapping[str, Format] = candidate_formats() if field == "input" else whole_formats()
    others = {
        each: module
        for each, module in known.items()
        if isinstance(module, FileFormat) and (module.TRAITS.holds_texts or field in ("input", "candidates"))
    }
    own = others.pop(name, None)
    if own is None:
        return ""
    try:
        find_file(url, {})  # a named pipe would be waited for
        with open_input(url, DEFAULT_LIMITS) as stream:
            first = stream.read(_LOOKED_AT_BYTES)
    except InputError:
        return ""
    likely = [each for each, module in others.items() if module.is_like(first, id_name)]
    likely.sort(key=lambda each: f".{each}" not in url.lower())  # the one that its name tells first
    if likely:
        return f"It looks like {' or '.join(likely)}: --set {field}.format={likely[0]}"
    if url.lower().endswith(own.SUFFIXES):
        return ""
    return f"{field}.format is {name}; it may be {', '.join(others)}: --set {field}.format=..."


def _all() -> dict[str, Format]:
    modules: dict[str, Format] = {}
    for name in names_in(formats):
        module = load(formats, name)
        assert isinstance(module, Format), f"formats/{name}.py: has no TRAITS"
        modules[name] = module
    return modules
