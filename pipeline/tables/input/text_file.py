"""Text files: the one way to open one, seen to be UTF-8, and read by lines of bounded length."""

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

from pipeline.errors import InputError
from pipeline.tables.input.compression import READ as COMPRESSIONS_READ
from pipeline.tables.input.compression import kind_of
from pipeline.tables.input.files import open_input
from pipeline.tables.input.limits import Limits

_ZEROS = 4
_BUFFER_BYTES = _LOOKED_AT_BYTES = 1 << 16


class TextFile:
    """An open one. Places are bytes of its content."""

    def __init__(self, stream: IO[bytes], url: str, limits: Limits) -> None:
        self.url, self.limits = url, limits
        # A store's own stream has no limit to what it takes for a line.
        self._lines = io.BufferedReader(cast("io.RawIOBase", stream), _BUFFER_BYTES)

    def seek(self, place: int) -> None:
        self._lines.seek(place)

    def tell(self) -> int:
        return self._lines.tell()

    def read(self, size: int = -1) -> bytes:
        return self._lines.read(size)

    def line(self, number: int) -> bytes:
        """The next one, number `number`, with its end; empty where there is none.

        Raises InputError where it is longer than the limits allow.
        """
        line = self._lines.readline(self.limits.max_line_bytes + 1)
        if len(line) > self.limits.max_line_bytes:
            raise self.limits.exceeded(f"{self.url} line {number}", "it is too long", "max_line_bytes")
        return line

    def detach(self) -> None:
        """Leave the stream to whom it came from."""
        self._lines.detach()


@contextmanager
def open_text(url: str, limits: Limits) -> Iterator[TextFile]:
    """A text file of the input: as `open_input`, and seen to be UTF-8 with lines that end in a line feed.

    Raises InputError for another encoding, other line ends, and compressed content without the ending for it.
    A byte order mark is left for the readers of lines to pass over, so that places stay those of the file.
    """
    with open_input(url, limits) as stream:
        file = TextFile(stream, url, limits)
        try:
            first = file.read(_LOOKED_AT_BYTES)
            _check_text(first, url)
            _check_line_ends(first, file)
            file.seek(0)
            yield file
        finally:
            file.detach()


def _check_text(first: bytes, url: str) -> None:
    if packed := kind_of(first):
        raise InputError(
            f"{url}: holds {packed} data, which its name does not say: decompress it, or give it the ending"
            f" of its compression ({', '.join(COMPRESSIONS_READ)} are read)"
        )
    # Zeros: UTF-16 without its mark. A text may hold one, and does not begin with it.
    marked = first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE))
    zeros = first.count(b"\0")
    if marked or b"\0" in first[:4] or (zeros >= _ZEROS and zeros * 20 > len(first)):
        wide = first[:4] in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE) or b"\0\0" in first[:4]
        encoding = "UTF-32" if wide else "UTF-16"
        raise InputError(
            f"{url}: is no UTF-8 text, it looks like {encoding}; convert it:"
            f" iconv -f {encoding} -t UTF-8 OLD > NEW"
        )


def _check_line_ends(first: bytes, file: TextFile) -> None:
    """first: what was read of it already; one line may be longer."""
    if b"\r" not in first.rstrip(b"\r"):
        return
    while first:
        if b"\n" in first:
            return
        first = file.read(_LOOKED_AT_BYTES)
    raise InputError(
        f"{file.url}: its lines end in a carriage return alone; convert the line ends:"
        " tr '\\r' '\\n' < OLD > NEW"
    )
