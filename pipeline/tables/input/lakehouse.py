"""A lakehouse's tables where plain Parquet was asked for.

Their log tells which files count. Who reads all of them gets deleted and updated rows back.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pipeline.errors import InputError, RayrankError, TemporaryError
from pipeline.tables.input.links import is_marker
from pipeline.tables.storage import place_of, store_errors

_LOGS = {"_delta_log": "Delta", ".hoodie": "Hudi", "_versions": "Lance"}
"""Folders by which a table is known."""
_DATA, _METADATA = "data", "metadata"
_METADATA_FILE = re.compile(r"(v\d+|\d+-)[^/]*\.metadata\.json(\.gz)?")
"""Of Iceberg, whose tables have it in `metadata/`, beside `data/`."""
_FORMATS = {"Delta": "delta", "Iceberg": "iceberg", "Lance": "lance"}
"""Those that are read."""


class LakehouseError(InputError):
    """A lakehouse's table where plain files were to be read."""

    def __init__(self, folder: str, kind: str) -> None:
        super().__init__(
            f"{folder}: is a lakehouse's table ({kind}); its files may hold rows that were deleted or updated"
        )
        self.args = (folder, kind)  # what unpickling hands to __init__
        self.format = _FORMATS.get(kind)
        """What reads it; None where nothing does."""
        self.place = "(its metadata.json)" if self.format == "iceberg" else folder
        """Its path, in that format."""


def refuse_lakehouse(fs: Any, searched: Mapping[str, tuple[Any, str]], named: Collection[str]) -> None:
    """Raises LakehouseError for a table that lies in a folder, or that the folder or a named file lies in.

    searched: the files that were found, each with the folder that was searched for it, the second of the two;
    named: files that were named themselves.
    """
    for name, (_, root) in searched.items():
        for folder, kind in _told_by(name, root, searched):
            raise LakehouseError(place_of(fs, folder), kind)
    roots = {root for _, root in searched.values()}
    above = {folder for place in {*roots, *named} for folder in _above(place)}
    for folder, child in sorted(above):
        for kind in _kinds_of(fs, folder, child):
            raise LakehouseError(place_of(fs, folder), kind)


def _told_by(name: str, root: str, searched: Collection[str]) -> Iterator[tuple[str, str]]:
    """The table that a file tells of, folder and kind. What lies in a marker's folder is not read anyway."""
    *parts, last = name.removeprefix(root).split("/")
    at = next((place for place, part in enumerate(parts) if part and is_marker(part)), len(parts))
    if at < len(parts) and parts[at] in _LOGS:
        yield root + "/".join(parts[:at]), _LOGS[parts[at]]
    elif at == len(parts) and parts[-1] == _METADATA and _METADATA_FILE.fullmatch(last):
        folder = root + "/".join(parts[:-1])
        if any(each.startswith(f"{folder}/{_DATA}/") for each in searched):
            yield folder, "Iceberg"


def _above(place: str) -> Iterator[tuple[str, str]]:
    """The folders above, each with the name in it that leads here.

    Not those of partitions, which are no tables and may be thousands.
    """
    while place := place.rstrip("/"):
        place, _, child = place.rpartition("/")
        if place and "=" not in place.rpartition("/")[2]:
            yield place, child


def _kinds_of(fs: Any, folder: str, child: str) -> Iterator[str]:
    """What table a folder is. Of one that this account may not look at nothing is known."""
    try:
        with store_errors(InputError, folder):
            yield from (kind for log, kind in _LOGS.items() if fs.isdir(f"{folder}/{log}"))
            if child == _DATA and fs.isdir(f"{folder}/{_METADATA}"):
                names = [name.rpartition("/")[2] for name in fs.ls(f"{folder}/{_METADATA}", detail=False)]
                yield from ["Iceberg"] * any(map(_METADATA_FILE.fullmatch, names))
    except TemporaryError:
        raise
    except (RayrankError, FileNotFoundError):
        return
