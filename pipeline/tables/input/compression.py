"""Compressed files by their endings: which are read, and how.

Several compressed parts in a row, as parallel packers write them, are one file. Bytes after a part that begin
no other, which the standard library's readers pass over in silence, are an error: they may have been rows.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.storage import named_by

_BLOCK_BYTES = 1 << 16
_PARTS: dict[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(16 + zlib.MAX_WBITS),
    ".bz2": bz2.BZ2Decompressor,
    ".xz": lzma.LZMADecompressor,
}
READ = (*_PARTS, ".zst")
_NOT_READ = (
    *(".deflate", ".gzip", ".tgz", ".z", ".bz", ".lzma", ".lz", ".lzo", ".zstd", ".lz4", ".snappy", ".sz"),
    *(".br", ".zip", ".7z", ".rar"),
)
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xff\x06\x00\x00sNaPpY": "snappy",
    b"\x1f\x9d": "compress (.Z)",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
}
ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading raises where a file is cut off or corrupt."""


def with_compression(*suffixes: str) -> tuple[str, ...]:
    """The endings of files, plain and in the compressions that are read."""
    return tuple(f"{suffix}{packed}" for suffix in suffixes for packed in ("", *READ))


def without_compression(name: str) -> str:
    """The name without an ending that says how the file is compressed, whether that is read or not."""
    return next((name[: -len(each)] for each in (*READ, *_NOT_READ) if name.lower().endswith(each)), name)


def is_packed(name: str) -> bool:
    """Whether a file is in a compression that is read."""
    return named_by(name).lower().endswith(READ)


def is_packed_otherwise(name: str) -> bool:
    """Whether a file is in a compression that is not read."""
    return named_by(name).lower().endswith(_NOT_READ)


def check_compression(name: str) -> None:
    """Raises InputError for a file in a compression that is not read."""
    if is_packed_otherwise(name):
        ending = named_by(name).lower().rpartition(".")[2]
        raise InputError(
            f"{name}: files compressed as .{ending} are not read; decompress it, or compress it as"
            f" {', '.join(READ[:-1])} or {READ[-1]}"
        )


def kind_of(first: bytes) -> str | None:
    """The compression of data that begins so; None where it is none that is known."""
    return next((kind for magic, kind in _MAGIC.items() if first.startswith(magic)), None)


def decompressed(stream: IO[bytes], name: str) -> IO[bytes]:
    """What `stream` holds, decompressed as the ending of its name says. Places are those of the content.

    Reading raises one of ERRORS where it is cut off or corrupt.
    """
    if not is_packed(name):
        return stream
    ending = f".{named_by(name).lower().rpartition('.')[2]}"
    return io.BufferedReader(_Decompressed(stream, ending), _BLOCK_BYTES)


class _Decompressed(io.RawIOBase):
    """Seeks by reading: forward from where it is, backward from the start."""

    def __init__(self, stream: IO[bytes], ending: str) -> None:
        self._stream, self._ending = stream, ending
        self._rewind()

    def _rewind(self) -> None:
        self._stream.seek(0)
        self._place, self._left = 0, memoryview(b"")
        make = _PARTS.get(self._ending)
        self._blocks = _zstd_blocks(self._stream) if make is None else _blocks(self._stream, make)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        taken = self._next(len(buffer))
        buffer[: len(taken)] = taken
        return len(taken)

    def _next(self, size: int) -> memoryview:
        if not self._left:
            self._left = memoryview(next((block for block in self._blocks if block), b""))
        taken, self._left = self._left[:size], self._left[size:]
        self._place += len(taken)
        return taken

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            while self._next(_BLOCK_BYTES):
                pass
        target = offset + (0 if whence == io.SEEK_SET else self._place)
        if target < self._place:
            self._rewind()
        while self._place < target and self._next(target - self._place):
            pass
        return self._place

    def tell(self) -> int:
        return self._place

    def close(self) -> None:
        self._stream.close()
        super().close()


def _blocks(stream: IO[bytes], make: Callable[[], Any]) -> Iterator[bytes]:
    part = None
    while block := stream.read(_BLOCK_BYTES):
        while block:
            if part is None:
                block = block.lstrip(b"\0")  # parts may be padded
                if not block:
                    break
                part = make()
            yield part.decompress(block)
            block, part = (part.unused_data, None) if part.eof else (b"", part)
    if part is not None:
        raise EOFError("it is cut off")


class _LeftOpen:
    """A stream that outlives its Arrow reader, which closes what it reads."""

    closed = False

    def __init__(self, stream: IO[bytes]) -> None:
        self.read = stream.read

    def close(self) -> None:
        pass


def _zstd_blocks(stream: IO[bytes]) -> Iterator[bytes]:
    frames = pa.CompressedInputStream(pa.PythonFile(_LeftOpen(stream), "r"), "zstd")
    while block := frames.read(_BLOCK_BYTES):
        yield block
