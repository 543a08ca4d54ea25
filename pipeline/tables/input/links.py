"""Local disks, where symbolic links count as what they point to."""

import os
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import InputError
from pipeline.tables.storage import locate

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

    def ls(self, path: str, detail: bool = False, **options: Any) -> list[Any]:
        try:
            return list(super().ls(path, detail=detail, **options))
        except PermissionError as error:
            if is_marker(path):
                return []
            raise InputError(f"{path}: can't be read: {error.strerror}") from error

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


def _leads_up(link: str) -> bool:
    """Whether a directory would hold itself: the link points to one that it was reached through, or above."""
    target = Path(link).resolve()
    return any(each.resolve().is_relative_to(target) for each in Path(link).absolute().parents)
