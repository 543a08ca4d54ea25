"""Single files of an input: found, opened, and checked to be the ones that were planned with."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import InputError
from pipeline.tables.input.compression import ERRORS as COMPRESSION_ERRORS
from pipeline.tables.input.compression import check_compression, decompressed
from pipeline.tables.input.deleted_rows import DeletedRows
from pipeline.tables.input.limits import Limits
from pipeline.tables.input.links import located, not_there
from pipeline.tables.input.partitions import Partitions, hive_partitions
from pipeline.tables.storage import locate, place_of, store_errors

_BY_DIGEST = " bytes, digest "
_COLUMNS = ", columns: "
_DELETED = ", rows deleted: "
_NAMED = 5
"""Files of a folder that an error tells of."""


class SourceFile(NamedTuple):
    """A file of the input. `identity` changes when its content does: size, with etag or time of change."""

    url: str
    size: int
    identity: str
    partitions: Partitions
    """Columns that stand in the path alone, not in the file."""
    deleted: DeletedRows = DeletedRows()
    """Rows that the file holds and its table does not."""


def find_file(url: str, partitions: Partitions | None = None) -> SourceFile:
    """The one file that `url` names, or that the link there points to.

    partitions: what they are, where its path does not tell them. Raises NotThereError where it is not there,
    InputError where it is no file.
    """
    fs, path = located(url)
    try:
        with store_errors(InputError, f"{url}: can't be read"):
            info = fs.info(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise not_there(url, "no such file") from error
    if info["type"] == "directory":
        raise _is_folder(fs, path, url)
    if info["type"] != "file":
        raise InputError(f"{url}: is no file")
    return source_file(place_of(fs, path), info, partitions)


@contextmanager
def open_input(url: str, limits: Limits) -> Iterator[IO[bytes]]:
    """A file of the input, decompressed by its ending.

    Raises InputError where it can't be opened, is in a compression that is not read, or turns out in the
    block to be cut off or corrupt, or to expand beyond the limits.
    """
    fs, path = locate(url, InputError)
    check_compression(url)
    try:
        with store_errors(InputError, f"{url}: can't be read"):
            if isinstance(fs, LocalFileSystem):
                _check_plain(path, url)
            stream = fs.open(path, "rb")
    except InputError as error:
        if isinstance(error.__cause__, IsADirectoryError):
            raise _is_folder(fs, path, url) from error
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise not_there(url, "no such file") from error
    try:
        with decompressed(stream, path, limits) as content:
            yield content
    except COMPRESSION_ERRORS as error:
        raise InputError(f"{url}: can't be read: {error}") from error


def known_by(file: SourceFile, digest: str) -> SourceFile:
    """The same file, by its content alone: made again with the same bytes, it is still the same."""
    return file._replace(identity=f"{file.size}{_BY_DIGEST}{digest}")


def without(file: SourceFile, deleted: DeletedRows) -> SourceFile:
    """The file with rows that its table has deleted since: with others deleted, it is another one."""
    if not deleted.count:
        return file
    identity = f"{file.identity}{_DELETED}{deleted.count}, {deleted.digest()}"
    return file._replace(identity=identity, deleted=deleted)


def with_columns(file: SourceFile, digest: str) -> SourceFile:
    """The file as its table declares its columns: declared in another way, it is another one."""
    return file._replace(identity=f"{file.identity}{_COLUMNS}{digest}")


@contextmanager
def unchanged(url: str, identity: str) -> Iterator[None]:
    """While a file is read: it is looked at before and after, since it may be written anew meanwhile.

    Raises InputError where it is no longer the one that was planned with.
    """
    check_unchanged(url, identity)
    try:
        yield
    except InputError:  # perhaps for the same reason, which tells more
        check_unchanged(url, identity)
        raise
    check_unchanged(url, identity)


def check_unchanged(url: str, identity: str) -> None:
    """Raises InputError where the file is no longer the one that was planned with.

    What is known by a digest is compared by its size: to read all of it for each shard would take too long.
    Which of its rows are deleted, and what its columns are, is planned, and nothing that the store knows.
    """
    identity = identity.partition(_DELETED)[0].partition(_COLUMNS)[0]
    size, by_digest, _ = identity.partition(_BY_DIGEST)
    try:
        file = find_file(url, {})
        now = f"{file.size}{_BY_DIGEST}" if by_digest else file.identity
    except InputError:
        now = "gone"
    if now != (f"{size}{_BY_DIGEST}" if by_digest else identity):
        raise InputError(f"{url}: changed while the job ran (planned with {identity}, now {now})")


def _check_plain(path: str, url: str) -> None:
    """Raises InputError for what would be waited for, such as a named pipe, or never ends."""
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(f"{url}: is no file")


def _is_folder(fs: Any, path: str, url: str) -> InputError:
    """For what names a folder where one file is needed."""
    with store_errors(InputError, f"{url}: can't be read"):
        names = sorted(name.rstrip("/").rpartition("/")[2] for name in fs.ls(path, detail=False))
    held = f"it holds {', '.join(names[:_NAMED])}" if names else "it is empty"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return InputError(f"{url}: is a folder; name one file. {held[0].upper()}{held[1:]}{more}")


def source_file(url: str, info: dict[str, Any], partitions: Partitions | None = None) -> SourceFile:
    """partitions: as in `find_file`. Raises InputError where its size is not told, by some web servers."""
    if info["size"] is None:
        raise InputError(f"{url}: the server does not tell its size; download it, and name the copy")
    told = hive_partitions(url) if partitions is None else partitions
    return SourceFile(url, info["size"], _identity(info), told)


def _identity(info: dict[str, Any]) -> str:
    keys = ("ETag", "etag", "content_md5", "mtime", "LastModified")
    changed = next((info[key] for key in keys if info.get(key)), "")
    if isinstance(changed, float):
        changed = datetime.fromtimestamp(changed, UTC).isoformat()
    return f"{info['size']} bytes, {str(changed).strip(chr(34))}"
