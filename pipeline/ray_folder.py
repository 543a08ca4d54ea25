"""The folder in which a Ray that starts on this machine works, and why it can't work there."""

import os
from pathlib import Path

from pipeline.errors import ConfigError

_DEFAULT = "/tmp"  # noqa: S108  (Ray's own default: named in messages and looked at, nothing is put there)
_LEAST_BYTES, _LEAST_FILES = 1 << 20, 20
"""Free. A Ray that does nothing yet writes more."""
_TOO_LONG = "AF_UNIX path length"
"""Of Ray's message (ray._private.utils)."""


def folder() -> Path:
    """As Ray chooses it on Linux."""
    return Path(_named()[1], "ray")


def check() -> None:
    """Raises ConfigError where its disk is full, or it is none: Ray would wait for long, and not say why."""
    if (found := trouble()) is not None:
        raise found


def trouble(error: Exception | None = None) -> ConfigError | None:
    """What is wrong with the folder, if anything is. error: with which a start ended."""
    why = _lack_of_room() if folder().is_absolute() else "it is no absolute path"
    if why is None and isinstance(error, OSError):
        why = _reason(error)
    return None if why is None else unusable(why)


def unusable(why: str) -> ConfigError:
    name, value = _named()
    return ConfigError(
        f"{name} {value}: Ray can't work there: {why}. Set RAY_TMPDIR to a folder of yours on a disk with"
        " room, by a short path, or set executor: here, which needs no Ray"
    )


def _named() -> tuple[str, str]:
    """By what, and what it names."""
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    return ("the folder", _DEFAULT) if name is None else (name, os.environ[name])


def _lack_of_room() -> str | None:
    try:
        place = next(each for each in (folder(), *folder().parents) if each.exists())
        room = os.statvfs(place)
    except OSError:  # Ray's start tells more
        return None
    free = room.f_bavail * room.f_frsize
    if room.f_blocks and free < _LEAST_BYTES:
        return f"the disk is full, {free:,} bytes are free"
    if room.f_files and room.f_favail < _LEAST_FILES:
        return f"the disk has room for {room.f_favail} more files (inodes) alone"
    return None


def _reason(error: OSError) -> str | None:
    if _TOO_LONG in str(error):
        return "the path is too long, sockets below it would have more than 107 bytes"
    if not isinstance(error.filename, str) or error.strerror is None:
        return None
    at, own = Path(error.filename), folder()
    return f"{at}: {error.strerror}" if at == own or at in own.parents or own in at.parents else None
