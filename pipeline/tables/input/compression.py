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
from pipeline.tables.input.limits import Limits
from pipeline.tables.storage import named_by

_BLOCK_BYTES = 1 << 16
_WINDOW_BYTES = 1 << 28
"""What a file may ask a reader to hold; the most that xz itself asks for is a quarter of it."""
_PARTS: dict[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(16 + zlib.MAX_WBITS),
    ".bz2": bz2.BZ2Decompressor,
    ".xz": lambda: lzma.LZMADecompressor(memlimit=_WINDOW_BYTES),
}
READ = (*_PARTS, ".zst")
_NOT_READ = (
    *(".deflate", ".gzip", ".tgz", ".z", ".bz", ".lzma", ".lz", ".lzo", ".zstd", ".lz4", ".snappy", ".sz"),
    *(".br", ".zip", ".7z", ".rar"),
)
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")
"""What stands behind its level: a block's beginning, or the end of data that is empty."""
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
    kind = next((kind for magic, kind in _MAGIC.items() if first.startswith(magic)), None)
    # These three letters may begin a text.
    return None if kind == "bzip2" and first[4:10] not in _BZIP2_BLOCKS else kind


def decompressed(stream: IO[bytes], name: str, limits: Limits) -> IO[bytes]:
    """What `stream` holds, decompressed as the ending of its name says. Places are those of the content.

    Reading raises one of ERRORS where it is cut off or corrupt, InputError where it expands beyond `limits`.
    """
    if not is_packed(name):
        return stream
    ending = f".{named_by(name).lower().rpartition('.')[2]}"
    return io.BufferedReader(_Decompressed(stream, name, ending, limits), _BLOCK_BYTES)


class _Decompressed(io.RawIOBase):
    """Seeks by reading: forward from where it is, backward from the start. Holds a block at a time."""

    def __init__(self, stream: IO[bytes], name: str, ending: str, limits: Limits) -> None:
        self._stream, self._name, self._ending, self._limits = stream, name, ending, limits
        self._rewind()

    def _rewind(self) -> None:
        self._stream.seek(0)
        self._place, self._left = 0, memoryview(b"")
        self._taken = self._made = 0
        make = _PARTS.get(self._ending)
        self._blocks = _zstd_blocks(self._take) if make is None else _blocks(self._take, make)

    def _take(self, size: int = -1) -> bytes:
        taken = self._stream.read(size)
        self._taken += len(taken)
        return taken

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
            self._made += len(self._left)
            self._limits.check_expansion(self._name, self._made, self._taken)
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


def _blocks(take: Callable[[int], bytes], make: Callable[[], Any]) -> Iterator[bytes]:
    part = None
    while block := take(_BLOCK_BYTES):
        while block:
            if part is None:
                block = block.lstrip(b"\0")  # parts may be padded
                if not block:
                    break
                part = make()
            yield from _pieces(part, block)
            block, part = (part.unused_data, None) if part.eof else (b"", part)
    if part is not None:
        raise EOFError("it is cut off")


def _pieces(part: Any, block: bytes) -> Iterator[bytes]:
    """What comes of a block, which may be thousands of times as much, a piece at a time."""
    while not part.eof:
        piece = part.decompress(block, _BLOCK_BYTES)
        yield piece
        block = getattr(part, "unconsumed_tail", b"")  # zlib hands back what the others keep
        if not block and len(piece) < _BLOCK_BYTES:
            return


class _LeftOpen:
    """A stream that outlives its Arrow reader, which closes what it reads."""

    closed = False

    def __init__(self, take: Callable[[int], bytes]) -> None:
        self.read = take

    def close(self) -> None:
        pass


def _zstd_blocks(take: Callable[[int], bytes]) -> Iterator[bytes]:
    frames = pa.CompressedInputStream(pa.PythonFile(_LeftOpen(take), "r"), "zstd")
    while block := frames.read(_BLOCK_BYTES):
        yield block
