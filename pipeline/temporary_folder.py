"""What lies in this machine's temporary folder (TMPDIR) for a while.

That nothing can be written there is told as an OutputError that names the folder. Errors of inputs and of
outputs go through as they are.
"""

import errno
import io
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline.errors import OutputError, RayrankError

if TYPE_CHECKING:  # the standard library has it from Python 3.12 on
    from typing_extensions import Buffer

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Of writing, whatever file they name: shutil names the one that was read."""
_RUST = re.compile(r"\(os error (\d+)\)")
"""How libraries in Rust, such as safetensors, tell an error of the system."""


@contextmanager
def spool(failed: str, *, named: bool = False) -> Iterator[BinaryIO]:
    """A file to write and read, gone when the block ends.

    failed: what can't be done without it; the message of the OutputError begins with it. A block that makes
    another error of one of writing, as torch.save does, ends with the OutputError. named: `name` leads to the
    file, which a process that is killed leaves there.
    """
    with _told(failed):
        descriptor, path = tempfile.mkstemp(prefix="rayrank-")
    raw = _Raw(descriptor, path, failed)
    if not named:
        Path(path).unlink()
    file = io.BufferedRandom(raw)
    try:
        yield file
    except Exception as error:
        if raw.error is not None and error is not raw.error:
            raise raw.error from error
        raise
    finally:
        with suppress(OutputError, OSError):  # what is left to write is needed no more, an error is told
            file.close()
        if named:
            Path(path).unlink(missing_ok=True)


@contextmanager
def new_folder(prefix: str, failed: str) -> Iterator[Path]:
    """A new one, gone with all that it holds when the block ends. failed: as of `spool`."""
    with _told(failed):
        made = tempfile.TemporaryDirectory(prefix=prefix)
    with made as name:
        yield Path(name)


@contextmanager
def filling(folder: Path, failed: str, *others: type[Exception]) -> Iterator[None]:
    """Around what writes into `folder`, one of `new_folder`, and nowhere else. failed: as of `spool`.

    others: errors of a library that are of writing, besides those of the system.
    """
    try:
        yield
    except RayrankError:
        raise
    except Exception as error:
        found = _RUST.search(str(error))
        if found is not None:
            raise _error(failed, int(found[1]), error) from error
        if isinstance(error, OSError):
            if error.errno in _NO_ROOM or _names(error, folder):
                raise _error(failed, error.errno, error) from error
        elif isinstance(error, others):
            raise _error(failed, None, error) from error
        raise


class _Raw(io.FileIO):
    """An open file, whose errors of writing are told as ours, and remembered."""

    def __init__(self, descriptor: int, path: str, failed: str) -> None:
        super().__init__(path, "r+", opener=lambda *_: descriptor)
        self._failed = failed
        self.error: OutputError | None = None

    def write(self, data: "Buffer") -> Any:
        try:
            with _told(self._failed):
                return super().write(data)
        except OutputError as error:
            self.error = self.error or error
            raise


@contextmanager
def _told(failed: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _error(failed, error.errno, error) from error


def _names(error: OSError, folder: Path) -> bool:
    """Whether it is of a file in `folder`."""
    names = (error.filename, error.filename2)
    return any(isinstance(name, str | os.PathLike) and Path(name).is_relative_to(folder) for name in names)


def _error(failed: str, number: int | None, error: Exception) -> OutputError:
    why = str(error) if number is None else os.strerror(number)
    try:
        place = tempfile.gettempdir()
    except FileNotFoundError:  # it tries several, the working directory last
        why, way_out = (
            str(error),
            "make room in one of them, or set TMPDIR to a folder that can be written to",
        )
        return OutputError(f"{failed}: there is no temporary folder: {why}; {way_out}")
    make_room = number is None or number in _NO_ROOM
    way_out = (
        "make room there, or set TMPDIR to another folder" if make_room else "set TMPDIR to another folder"
    )
    return OutputError(f"{failed}: the temporary folder {place} can't be written to: {why}; {way_out}")
