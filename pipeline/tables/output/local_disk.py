"""Local disks: a file appears whole or not at all, and what was written survives a power cut."""

import os
import uuid
from pathlib import Path

from pipeline.errors import OutputError

LEFTOVER = ".tmp"
"""How the names end of files that are being written, and of those that killed writers leave."""


def make_directory(path: Path) -> None:
    """With its parents; nothing happens where it is there."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    to_disk(path.parent)


def link_into_place(data: bytes, target: str) -> bool:
    """A link appears with its content or not at all, and never over another: False."""
    beside = Path(f"{target}.{uuid.uuid4().hex}{LEFTOVER}")
    try:
        beside.write_bytes(data)
        to_disk(beside)
        os.link(beside, target)
    except FileExistsError:
        return False
    finally:
        beside.unlink(missing_ok=True)
    to_disk(beside.parent)
    return True


def move_into_place(beside: str, target: str) -> None:
    """Or a marker may outlive, in a power cut, the data it vouches for."""
    to_disk(Path(beside))
    Path(beside).replace(target)
    to_disk(Path(target).parent)


def to_disk(path: Path) -> None:
    """A file's content, or a directory's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_lost_link(path: Path) -> None:
    """Raises OutputError where the path, or one above it, is a link to nothing or can't be looked at."""
    for place in (path, *path.parents):
        try:
            lost = place.is_symlink() and not place.exists()
        except OSError as error:  # rights, or a name that is too long
            raise OutputError(f"{place}: can't be looked at: {error.strerror}") from error
        if lost:
            raise OutputError(
                f"{place}: a symbolic link to what is not there ({place.readlink()}); mend or remove it"
            )
