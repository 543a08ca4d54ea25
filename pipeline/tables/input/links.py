"""Local disks, where symbolic links count as what they point to."""

import os
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import InputError
from pipeline.tables.input.partitions import hive_partitions
from pipeline.tables.storage import locate

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


def what_lacks(fs: Any, path: str, otherwise: str) -> str:
    """What to say of a path that leads to nothing."""
    is_link = isinstance(fs, LocalFileSystem) and Path(path).is_symlink()
    return f"{NOWHERE} ({Path(path).readlink()})" if is_link else otherwise


class LinksFollowed(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Entries that are links count as what they point to.

    fsspec's own listings call them "other", don't descend into directories behind them, and pass over
    directories that can't be read.
    """

    cachable = False
    met_links = False
    """Whether a listing came upon a link, so that a file may have been reached twice."""

    _reached: dict[tuple[str, str, int], str] | None = None
    """Of a search: the directories behind links, and the path that each is listed by."""

    def search(self, root: str) -> dict[str, Info]:
        """All files below a directory. What lies behind links is listed by one path alone: folders of links
        to each other would be walked for ever, or nearly.
        """
        self._reached = {}
        try:
            return dict(self.find(root, detail=True))
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

    def _mark(self, entry: Info, reached: dict[tuple[str, str, int], str]) -> None:
        """Don't descend into what another path has led to."""
        path = entry["name"]
        is_directory = entry["islink"] and entry["type"] == "directory"
        if is_directory and reached.setdefault(_rows_below(path), path) != path:
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
