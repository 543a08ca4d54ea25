"""Single files of an input: found, opened, and checked to be the ones that were planned with."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO, Any, NamedTuple

from pipeline.errors import InputError
from pipeline.tables.input.compression import ERRORS as COMPRESSION_ERRORS
from pipeline.tables.input.compression import READ as COMPRESSIONS_READ
from pipeline.tables.input.compression import check_compression, decompressed, kind_of
from pipeline.tables.input.links import located, what_lacks
from pipeline.tables.input.partitions import Partitions, hive_partitions
from pipeline.tables.storage import locate, place_of, store_errors

_LOOKED_AT_BYTES = 1 << 16


class SourceFile(NamedTuple):
    """A file of the input. `identity` changes when its content does: size, with etag or time of change."""

    url: str
    size: int
    identity: str
    partitions: Partitions
    """Columns that stand in the path alone, not in the file."""


def find_file(url: str) -> SourceFile:
    """The one file that `url` names, or that the link there points to.

    Raises InputError where it is not there, or no file.
    """
    fs, path = located(url)
    try:
        with store_errors(InputError, f"{url}: can't be read"):
            info = fs.info(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{url}: {what_lacks(fs, path, 'no such file')}") from error
    if info["type"] != "file":
        raise InputError(f"{url}: is no file")
    return source_file(place_of(fs, path), info)


@contextmanager
def open_input(url: str) -> Iterator[IO[bytes]]:
    """A file of the input, decompressed by its ending.

    Raises InputError where it can't be opened, is in a compression that is not read, or turns out in the
    block to be cut off or corrupt.
    """
    fs, path = locate(url, InputError)
    check_compression(url)
    try:
        with store_errors(InputError, f"{url}: can't be read"):
            stream = fs.open(path, "rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{url}: {what_lacks(fs, path, 'no such file')}") from error
    try:
        with decompressed(stream, path) as content:
            yield content
    except COMPRESSION_ERRORS as error:
        raise InputError(f"{url}: can't be read: {error}") from error


@contextmanager
def open_text(url: str) -> Iterator[IO[bytes]]:
    """A text file of the input: as `open_input`, and seen to be UTF-8 with lines that end in a line feed.

    Raises InputError for another encoding, other line ends, and compressed content without the ending for it.
    A byte order mark is left for the readers of lines to pass over, so that places stay those of the file.
    """
    with open_input(url) as stream:
        _check_text(stream.read(_LOOKED_AT_BYTES), url)
        stream.seek(0)
        yield stream


def _check_text(first: bytes, url: str) -> None:
    if packed := kind_of(first):
        raise InputError(
            f"{url}: holds {packed} data, which its name does not say: decompress it, or give it the ending"
            f" of its compression ({', '.join(COMPRESSIONS_READ)} are read)"
        )
    # Zeros: UTF-16 without its mark. A text may hold one, and does not begin with it.
    marked = first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE))
    if marked or b"\0" in first[:4] or first.count(b"\0") * 20 > len(first):
        wide = first[:4] in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE) or b"\0\0" in first[:4]
        encoding = "UTF-32" if wide else "UTF-16"
        raise InputError(
            f"{url}: is no UTF-8 text, it looks like {encoding}; convert it:"
            f" iconv -f {encoding} -t UTF-8 OLD > NEW"
        )
    if b"\r" in first.rstrip(b"\r") and b"\n" not in first:
        raise InputError(
            f"{url}: its lines end in a carriage return alone; convert the line ends:"
            " tr '\\r' '\\n' < OLD > NEW"
        )


def check_unchanged(url: str, identity: str) -> None:
    """Raises InputError where the file is no longer the one that was planned with."""
    try:
        now = find_file(url).identity
    except InputError:
        now = "gone"
    if now != identity:
        raise InputError(f"{url}: changed while the job ran (planned with {identity}, now {now})")


def source_file(url: str, info: dict[str, Any]) -> SourceFile:
    return SourceFile(url, info["size"], _identity(info), hive_partitions(url))


def _identity(info: dict[str, Any]) -> str:
    keys = ("ETag", "etag", "content_md5", "mtime", "LastModified")
    changed = next((info[key] for key in keys if info.get(key)), "")
    if isinstance(changed, float):
        changed = datetime.fromtimestamp(changed, UTC).isoformat()
    return f"{info['size']} bytes, {str(changed).strip(chr(34))}"
