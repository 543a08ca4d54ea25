"""The files of an input: found, opened, and checked to be the ones that were planned with."""

import codecs
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem

from pipeline import log
from pipeline.errors import InputError
from pipeline.tables.input.compression import ERRORS as COMPRESSION_ERRORS
from pipeline.tables.input.compression import READ as COMPRESSIONS_READ
from pipeline.tables.input.compression import check_compression, decompressed, kind_of
from pipeline.tables.input.partitions import Partitions, hive_partitions
from pipeline.tables.storage import locate, place_of, store_errors

_MARKER = "a name that begins with _ or . is a marker's"
_NOWHERE, _CIRCLE = "a symbolic link to what is not there", "a symbolic link that leads in a circle"
_NAMED_IN_LOG = 10
_LOOKED_AT_BYTES = 1 << 16

Info = dict[str, Any]
"""What fsspec tells of a file."""


class SourceFile(NamedTuple):
    """A file of the input. `identity` changes when its content does: size, with etag or time of change."""

    url: str
    size: int
    identity: str
    partitions: Partitions
    """Columns that stand in the path alone, not in the file."""


def find_files(url: str, suffixes: tuple[str, ...]) -> tuple[list[SourceFile], dict[str, str]]:
    """The files that `url` means, sorted by path, and those left out with the reason.

    A directory, or one that a glob matches, is searched to its depths for files with one of `suffixes`; names
    that begin with "_" or "." are markers and are left out, but for a partition's (_lang=en). A single file,
    or one that a glob matches, is taken as it is. Symbolic links are what they point to. Raises InputError
    where there is nothing, and for a link that leads nowhere or in a circle, a directory that can't be read,
    and a file in a compression that is not read.
    """
    fs, path = _located(url)
    searched, taken = _listed(fs, path, url)
    infos = searched | {name: (info, None) for name, info in taken.items()}
    # A store's client would keep what it listed: a gigabyte for a million files.
    fs.invalidate_cache()
    files: list[SourceFile] = []
    skipped: dict[str, str] = {}
    for name in sorted(infos):
        info, root = infos.pop(name)
        if info["type"] == "directory":
            continue
        reason = _reason_to_skip(name, root, suffixes, info)
        if reason is None:
            files.append(_source_file(place_of(fs, name), info))
        else:
            skipped[place_of(fs, name)] = reason
    if not files:
        raise InputError(f"{url}: no files here{_explain(skipped)}")
    return files, skipped


def _listed(fs: Any, path: str, url: str) -> tuple[dict[str, tuple[Info, str]], dict[str, Info]]:
    """What directories hold, each with the directory that was searched, and what was named itself."""
    try:
        with store_errors(InputError, f"{url}: can't be read"):
            if fs.isdir(path):
                roots, taken = [path.rstrip("/")], {}
            elif any(sign in path for sign in "*?[") and not fs.exists(path):
                taken = fs.glob(path, detail=True)
                directories = [name for name, info in taken.items() if info["type"] == "directory"]
                roots = [name.rstrip("/") for name in directories if not _is_marker(name)]
                taken = {name: info for name, info in taken.items() if name not in directories}
            else:
                roots, taken = [], {path: fs.info(path)}
            searched = {
                name: (info, root) for root in roots for name, info in fs.find(root, detail=True).items()
            }
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{url}: {_what_lacks(fs, path, 'no such file or directory')}") from error
    return searched, taken


def log_skipped(skipped: dict[str, str], **fields: str) -> None:
    """Tell how many files of an input are left out, and by name those that are no markers."""
    if skipped:
        log.warning("files left out", **fields, files=len(skipped))
    unexpected = ((file, reason) for file, reason in skipped.items() if reason != _MARKER)
    for file, reason in islice(unexpected, _NAMED_IN_LOG):
        log.warning("file left out", **fields, file=file, reason=reason)


def find_file(url: str) -> SourceFile:
    """The one file that `url` names, or that the link there points to.

    Raises InputError where it is not there, or no file.
    """
    fs, path = _located(url)
    try:
        with store_errors(InputError, f"{url}: can't be read"):
            info = fs.info(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{url}: {_what_lacks(fs, path, 'no such file')}") from error
    if info["type"] != "file":
        raise InputError(f"{url}: is no file")
    return _source_file(place_of(fs, path), info)


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
        raise InputError(f"{url}: {_what_lacks(fs, path, 'no such file')}") from error
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


def _source_file(url: str, info: dict[str, Any]) -> SourceFile:
    return SourceFile(url, info["size"], _identity(info), hive_partitions(url))


def _identity(info: dict[str, Any]) -> str:
    keys = ("ETag", "etag", "content_md5", "mtime", "LastModified")
    changed = next((info[key] for key in keys if info.get(key)), "")
    if isinstance(changed, float):
        changed = datetime.fromtimestamp(changed, UTC).isoformat()
    return f"{info['size']} bytes, {str(changed).strip(chr(34))}"


def _reason_to_skip(name: str, root: str | None, suffixes: tuple[str, ...], info: Info) -> str | None:
    if root is not None and any(map(_is_marker, name.removeprefix(root).split("/"))):
        return _MARKER
    if info["type"] in (_NOWHERE, _CIRCLE):
        if root is None and _is_marker(name):  # what `*` matches too
            return _MARKER
        raise InputError(f"{name}: {info['type']} ({info['destination']}); mend or remove it")
    if root is not None:
        check_compression(name, suffixes)
        if not name.lower().endswith(suffixes):
            return f"ends in none of {', '.join(suffixes)}"
    if info["type"] != "file":
        return "is no file"
    return "empty" if info["size"] == 0 else None


def _is_marker(name: str) -> bool:
    """As Spark has it: a partition by a column that begins with _ (_lang=en) is data."""
    last = name.rstrip("/").rpartition("/")[2]
    return last.startswith(".") or (last.startswith("_") and "=" not in last)


def _explain(skipped: dict[str, str]) -> str:
    if not skipped:
        return ""
    name, reason = next(iter(skipped.items()))
    return f" but {len(skipped)} left out, such as {name} ({reason})"


def _located(url: str) -> tuple[Any, str]:
    fs, path = locate(url, InputError)
    return (_LinksFollowed() if isinstance(fs, LocalFileSystem) else fs), path


def _what_lacks(fs: Any, path: str, otherwise: str) -> str:
    is_link = isinstance(fs, LocalFileSystem) and Path(path).is_symlink()
    return f"{_NOWHERE} ({Path(path).readlink()})" if is_link else otherwise


class _LinksFollowed(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Local disks, where entries that are links count as what they point to.

    fsspec's own listings call them "other", don't descend into directories behind them, and pass over
    directories that can't be read.
    """

    cachable = False

    def ls(self, path: str, detail: bool = False, **options: Any) -> list[Any]:
        try:
            return list(super().ls(path, detail=detail, **options))
        except PermissionError as error:
            raise InputError(f"{path}: can't be read: {error.strerror}") from error

    def info(self, path: Any, **options: Any) -> Info:
        if not (isinstance(path, os.DirEntry) and path.is_symlink()):
            return dict(super().info(path, **options))
        try:
            info = dict(super().info(path.path, **options))
        except OSError:
            info = dict(super().info(path, **options)) | {"type": _NOWHERE}
        if info["type"] == "directory" and _leads_up(path.path):
            info["type"] = _CIRCLE
        return info


def _leads_up(link: str) -> bool:
    """Whether a directory would hold itself: the link points to one that it was reached through, or above."""
    target = Path(link).resolve()
    return any(each.resolve().is_relative_to(target) for each in Path(link).absolute().parents)
