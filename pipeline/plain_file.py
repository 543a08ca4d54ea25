"""Opens files of this machine that a path from outside names: files alone, and without waiting."""

import errno
import os
import stat
from io import FileIO
from pathlib import Path

_OF_THE_SHELL = ("/dev/", "/proc/")


def open_plain(path: Path, *, piped: bool = False) -> FileIO:
    """Open a file to read its bytes, without a buffer.

    A named pipe would be waited for, and a device such as /dev/zero never ends: they are refused. piped: take
    a pipe that the shell hands over, `<(...)` or /dev/stdin. Raises OSError, with its reason as `strerror`.
    """
    stream = FileIO(str(path), opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    mode = os.fstat(stream.fileno()).st_mode
    if stat.S_ISREG(mode):
        return stream
    if piped and stat.S_ISFIFO(mode) and str(path).startswith(_OF_THE_SHELL):
        os.set_blocking(stream.fileno(), True)
        return stream
    stream.close()
    raise OSError(errno.EINVAL, "is no file", str(path))
