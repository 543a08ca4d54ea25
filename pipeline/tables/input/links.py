"""Local disks, where symbolic links count as what they point to."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from pipeline.errors import InputError, NotThereError
from pipeline.tables.input.partitions import hive_partitions
from pipeline.tables.storage import bucket_lacking, locate

AGAIN = "is a directory that another link has led to"
NOWHERE, CIRCLE = "a symbolic link to what is not there", "a symbolic link that leads in a circle"

Info = dict[str, Any]
"""What fsspec tells of a file."""


def located(url: str) -> tuple[Any, str]:
    """As `storage.locate`, with links followed."""
    fs, path = locate(url, InputError)
    return (LinksFollowed() if isinstance(fs, LocalFileSystem) else fs), path


def is_marker(name: str) -> bool:
    """Whether a file or directory is left out by rule, as Spark does: _SUCCESS, .part-0.parquet.crc.

    A partition by a column that begins with _ (_lang=en) is data.
    """
    last = name.rstrip("/").rpartition("/")[2]
    return last.startswith(".") or (last.startswith("_") and "=" not in last) or last.endswith(".crc")


def not_there(url: str, what: str) -> InputError:
    """What to raise of a URL that leads to nothing. what: to say where nothing more is known.

    A NotThereError, but where the bucket is missing: nobody who is late writes that.
    """
    fs, path = located(url)
    if isinstance(fs, LocalFileSystem):
        is_link = Path(path).is_symlink() and not Path(path).exists()
        return NotThereError(url, f"{NOWHERE} ({Path(path).readlink()})" if is_link else what)
    lack = bucket_lacking(url, InputError)
    return NotThereError(url, what) if lack is None else InputError(lack)


class LinksFollowed(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Entries that are links count as what they point to.

    fsspec's own listings call them "other", don't descend into directories behind them, and pass over
    directories that can't be read.
    """

    cachable = False
    met_links = False
    """Whether a listing came upon a link, so that a file may have been reached twice."""

    _reached: dict[tuple[str, str, int, frozenset[int]], str] | None = None
    """Of a search: the directories behind links, and the path that each is listed by."""
    _pattern = ""
    """That a search matches paths with."""

    def search(self, root: str) -> dict[str, Info]:
        """All files below a directory. What lies behind links is listed by one path alone: folders of links
        to each other would be walked for ever, or nearly.
        """
        with self._bounded(""):
            return dict(self.find(root, detail=True))

    def glob(self, path: str, **options: Any) -> Any:
        """With `**` bounded as `search` is: a directory is listed again where other paths below it match."""
        with self._bounded(path) if "**" in path else nullcontext():
            return super().glob(path, **options)

    @contextmanager
    def _bounded(self, pattern: str) -> Iterator[None]:
        self._reached, self._pattern = {}, pattern
        try:
            yield
        finally:
            self._reached = None

    def ls(self, path: str, detail: bool = False, **options: Any) -> list[Any]:
        try:
            listed = list(super().ls(path, detail=detail, **options))
        except PermissionError as error:
            if is_marker(path):
                return []
            raise InputError(f"{path}: can't be read: {error.strerror}") from error
        if detail and self._reached is not None:
            listed.sort(key=lambda entry: entry["name"])  # whoever lists it, the same path is the first
            for entry in listed:
                self._mark(entry, self._reached)
        return listed

    def _mark(self, entry: Info, reached: dict[tuple[str, str, int, frozenset[int]], str]) -> None:
        """Don't descend into what another path has led to."""
        path = entry["name"]
        is_directory = entry["islink"] and entry["type"] == "directory"
        if not is_directory:
            return
        below = (*_rows_below(path), _places_in(self._pattern, path))
        if reached.setdefault(below, path) != path:
            entry["type"] = AGAIN

    def info(self, path: Any, **options: Any) -> Info:
        if not (isinstance(path, os.DirEntry) and path.is_symlink()):
            return dict(super().info(path, **options))
        self.met_links = True
        try:
            info = dict(super().info(path.path, **options))
        except OSError:
            info = dict(super().info(path, **options)) | {"type": NOWHERE}
        if info["type"] == "directory" and _leads_up(path.path):
            info["type"] = CIRCLE
        return info


def _rows_below(link: str) -> tuple[str, str, int]:
    """What rows come of it: other partitions make other ones, and what hides a path hides its files."""
    hidden = sum(map(is_marker, link.split("/")))
    return os.path.realpath(link), str(hive_partitions(f"{link}/")), hidden


def _leads_up(link: str) -> bool:
    """Whether a directory would hold itself: the link points to one that it was reached through, or above."""
    target = Path(link).resolve()
    return any(each.resolve().is_relative_to(target) for each in Path(link).absolute().parents)


def _places_in(pattern: str, path: str) -> frozenset[int]:
    """How many parts of a glob a path may have used up: by what is left, paths below it match."""
    parts = pattern.strip("/").split("/")
    places = _onward(parts, {0})
    for name in path.strip("/").split("/"):
        matched = [at for at in places if at < len(parts) and _part(parts[at]).match(name)]
        places = _onward(parts, {at if parts[at] == "**" else at + 1 for at in matched})
    return frozenset(places)


def _onward(parts: list[str], places: set[int]) -> set[int]:
    """With the places behind `**`, which may stand for no directory at all."""
    following = {at + 1 for at in places if at < len(parts) and parts[at] == "**"}
    return places if following <= places else _onward(parts, places | following)


@lru_cache
def _part(part: str) -> re.Pattern[str]:
    return re.compile(".*" if part == "**" else glob_translate(part))
