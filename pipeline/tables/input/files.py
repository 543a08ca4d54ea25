"""The files of an input: found, opened, and checked to be the ones that were planned with."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO, Any, NamedTuple

from pipeline.errors import InputError
from pipeline.tables.input.partitions import Partitions, hive_partitions
from pipeline.tables.storage import locate, place_of, store_errors


class SourceFile(NamedTuple):
    """A file of the input. `identity` changes when its content does: size, with etag or time of change."""

    url: str
    size: int
    identity: str
    partitions: Partitions
    """Columns that stand in the path alone, not in the file."""


def find_files(url: str, suffixes: tuple[str, ...]) -> tuple[list[SourceFile], dict[str, str]]:
    """The files that `url` means, sorted by path, and those left out with the reason.

    A directory is searched to its depths for files with one of `suffixes`; names that begin with "_" or
    "." are markers and are left out. A single file, or what a glob matches, is taken as it is. Raises
    InputError where there is nothing.
    """
    fs, path = locate(url, InputError)
    root = None
    try:
        with store_errors(InputError, f"{url}: can't be read"):
            if fs.isdir(path):
                root, infos = path.rstrip("/"), fs.find(path, detail=True)
            elif any(sign in path for sign in "*?[") and not fs.exists(path):
                infos = fs.glob(path, detail=True)
            else:
                infos = {path: fs.info(path)}
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{url}: no such file or directory") from error
    # A store's client would keep what it listed: a gigabyte for a million files.
    fs.invalidate_cache()
    files, skipped = [], {}
    for name in sorted(infos):
        info = infos.pop(name)
        if info["type"] != "file":
            continue
        reason = _reason_to_skip(name, root, suffixes, info["size"])
        if reason is None:
            files.append(_source_file(place_of(fs, name), info))
        else:
            skipped[place_of(fs, name)] = reason
    if not files:
        raise InputError(f"{url}: no files here{_explain(skipped)}")
    return files, skipped


def find_file(url: str) -> SourceFile:
    """The one file that `url` names. Raises InputError where it is not there, or no file."""
    fs, path = locate(url, InputError)
    try:
        with store_errors(InputError, f"{url}: can't be read"):
            info = fs.info(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{url}: no such file") from error
    if info["type"] != "file":
        raise InputError(f"{url}: is no file")
    return _source_file(place_of(fs, path), info)


@contextmanager
def open_input(url: str) -> Iterator[IO[bytes]]:
    """A file of the input, decompressed by its ending.

    Raises InputError where it can't be opened, or turns out in the block to be cut off or corrupt.
    """
    fs, path = locate(url, InputError)
    try:
        with store_errors(InputError, f"{url}: can't be read"):
            stream = fs.open(path, "rb", compression="infer")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{url}: no such file") from error
    try:
        with stream:
            yield stream
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{url}: can't be read: {error}") from error


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


def _reason_to_skip(name: str, root: str | None, suffixes: tuple[str, ...], size: int) -> str | None:
    if root is not None:
        if any(part.startswith(("_", ".")) for part in name.removeprefix(root).split("/")):
            return "a name that begins with _ or . is a marker's"
        if not name.lower().endswith(suffixes):
            return f"ends in none of {', '.join(suffixes)}"
    return "empty" if size == 0 else None


def _explain(skipped: dict[str, str]) -> str:
    if not skipped:
        return ""
    name, reason = next(iter(skipped.items()))
    return f" but {len(skipped)} left out, such as {name} ({reason})"
