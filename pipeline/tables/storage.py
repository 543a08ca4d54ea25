"""Files on a disk or in object storage, by URL: listing, reading, and writing whole or not at all."""

import os
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import fsspec
import pyarrow as pa
import pyarrow.fs
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import InputError, OutputError, RayrankError
from pipeline.tables.partitions import Partitions, hive_partitions

_JOB_WORKING_DIRECTORY = "/runtime_resources/working_dir_files/"
_PUTS_ARE_ATOMIC = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory"}
_LEFTOVER = ".tmp"


class SourceFile(NamedTuple):
    """A file of the input. `identity` changes when its content does: size, with etag or time of change."""

    url: str
    size: int
    identity: str
    partitions: Partitions
    """Columns that stand in the path alone, not in the file."""


class Directory:
    """A directory by its URL, to which files are written whole or not at all."""

    def __init__(self, url: str) -> None:
        self._fs, path = _locate(url, OutputError)
        self._path = path.rstrip("/")
        self.url = _url(self._fs, self._path)
        if _JOB_WORKING_DIRECTORY in self.url:
            raise OutputError(
                f"{url}: lies in the copy of the working directory that Ray makes for a job, and deletes;"
                " give an absolute path or a URL"
            )

    def write(self, name: str, data: bytes) -> None:
        """Make `name` hold `data`; a reader sees all of it or none. Raises OutputError where it can't."""
        with self.writing(name) as stream:
            stream.write(data)

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A stream whose content becomes `name` when the block ends well, and nothing otherwise."""
        with tempfile.NamedTemporaryFile() as spool:
            yield spool
            spool.flush()
            with _store_errors(OutputError, f"{self.url}/{name}: can't be written"):
                self._put(spool.name, f"{self._path}/{name}")

    def _put(self, file: str, target: str) -> None:
        parent, _, leaf = target.rpartition("/")
        self._fs.makedirs(parent, exist_ok=True)
        protocols = {self._fs.protocol} if isinstance(self._fs.protocol, str) else set(self._fs.protocol)
        if protocols & _PUTS_ARE_ATOMIC:
            self._fs.put_file(file, target)
            return
        # Elsewhere a file appears as soon as it is opened: write beside it, then rename. The leading "_"
        # hides what a killed writer leaves from every reader of such tables.
        beside = f"{parent}/_{leaf}.{uuid.uuid4().hex}{_LEFTOVER}"
        self._fs.put_file(file, beside)
        if isinstance(self._fs, LocalFileSystem):
            _to_disk(beside)  # or a marker may outlive, in a power cut, the data it vouches for
        self._fs.mv(beside, target)

    def remove_leftovers(self, subdirectory: str) -> None:
        """Remove what writers that were killed left in `subdirectory`."""
        for name in self.names(subdirectory):
            if name.endswith(_LEFTOVER):
                with _store_errors(OutputError, f"{self.url}/{subdirectory}/{name}: can't be removed"):
                    self._fs.rm_file(f"{self._path}/{subdirectory}/{name}")

    def create(self, name: str, data: bytes) -> bool:
        """Make `name` hold `data` unless it is there already: False. Of several who try at once one succeeds.

        `data` must differ from writer to writer: a write whose answer was lost is known by it. On stores
        without a conditional write (all but local disks, S3 and its like, and GCS) two may succeed.
        """
        target = f"{self._path}/{name}"
        with _store_errors(OutputError, f"{self.url}/{name}: can't be written"):
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            if isinstance(self._fs, LocalFileSystem):
                return _link_into_place(data, target)
            self._fs.invalidate_cache()
            try:
                return self._create(target, data)
            except (ValueError, TypeError, NotImplementedError):  # a store without a conditional write
                if self._fs.exists(target):
                    return False
                self._fs.pipe_file(target, data)
                return True

    def _create(self, target: str, data: bytes, tries: int = 3) -> bool:
        try:
            self._fs.pipe_file(target, data, mode="create")
        except OSError:
            if self._fs.exists(target):
                return bool(self._fs.cat_file(target) == data)
            if tries == 1:
                raise
            # S3 may refuse several conditional writes at once, and then none has won (409, "retry").
            time.sleep(1)
            return self._create(target, data, tries - 1)
        return True

    def remove(self, subdirectory: str = "") -> None:
        """Remove the directory, or one in it, with all that it holds; nothing happens where there is none."""
        path = f"{self._path}/{subdirectory}".rstrip("/")
        with _store_errors(OutputError, f"{path}: can't be removed"), suppress(FileNotFoundError):
            self._fs.rm(path, recursive=True)

    def remove_file(self, name: str) -> None:
        with _store_errors(OutputError, f"{self.url}/{name}: can't be removed"), suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._path}/{name}")

    def read(self, name: str) -> bytes | None:
        """What `name` holds; None where there is no such file."""
        try:
            with _store_errors(OutputError, f"{self.url}/{name}: can't be read"):
                return bytes(self._fs.cat_file(f"{self._path}/{name}"))
        except FileNotFoundError:
            return None
        except NotADirectoryError as error:
            raise OutputError(f"{self.url}: is a file; the output needs a directory") from error

    def names(self, subdirectory: str = "") -> set[str]:
        """The names of the entries in `subdirectory`; none where there is no such directory."""
        self._fs.invalidate_cache()
        try:
            with _store_errors(OutputError, f"{self.url}: can't be listed"):
                entries = self._fs.ls(f"{self._path}/{subdirectory}".rstrip("/"), detail=False)
        except FileNotFoundError:
            return set()
        except NotADirectoryError as error:
            raise OutputError(f"{self.url}: is a file; the output needs a directory") from error
        return {entry.rstrip("/").rpartition("/")[2] for entry in entries}


def find_files(url: str, suffixes: tuple[str, ...]) -> tuple[list[SourceFile], dict[str, str]]:
    """The files that `url` means, sorted by path, and those left out with the reason.

    A directory is searched to its depths for files with one of `suffixes`; names that begin with "_" or
    "." are markers and are left out. A single file, or what a glob matches, is taken as it is. Raises
    InputError where there is nothing.
    """
    fs, path = _locate(url, InputError)
    root = None
    try:
        with _store_errors(InputError, f"{url}: can't be read"):
            if fs.isdir(path):
                root, found = path.rstrip("/"), fs.find(path, detail=True)
            elif any(sign in path for sign in "*?[") and not fs.exists(path):
                found = fs.glob(path, detail=True)
            else:
                found = {path: fs.info(path)}
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{url}: no such file or directory") from error
    files, left_out = [], {}
    for name, info in sorted(found.items()):
        if info["type"] != "file":
            continue
        reason = _reason_to_leave_out(name, root, suffixes, info["size"])
        if reason is None:
            files.append(_source_file(_url(fs, name), info))
        else:
            left_out[_url(fs, name)] = reason
    if not files:
        raise InputError(f"{url}: no files here{_explain(left_out)}")
    return files, left_out


def absolute(url: str) -> str:
    """The same place, for a process that was started in another directory."""
    fs, path = _locate(url, InputError)
    return _url(fs, path)


def is_directory(url: str) -> bool:
    fs, path = _locate(url, InputError)
    return bool(fs.isdir(path))


def find_file(url: str) -> SourceFile:
    """The one file that `url` names. Raises InputError where it is not there, or no file."""
    fs, path = _locate(url, InputError)
    try:
        with _store_errors(InputError, f"{url}: can't be read"):
            info = fs.info(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{url}: no such file") from error
    if info["type"] != "file":
        raise InputError(f"{url}: is no file")
    return _source_file(_url(fs, path), info)


@contextmanager
def open_input(url: str) -> Iterator[IO[bytes]]:
    """A file of the input, decompressed by its ending.

    Raises InputError where it can't be opened, or turns out in the block to be cut off or corrupt.
    """
    fs, path = _locate(url, InputError)
    try:
        with _store_errors(InputError, f"{url}: can't be read"):
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


@contextmanager
def _store_errors(error_class: type[RayrankError], what: str) -> Iterator[None]:
    """Every store's client has errors of its own (credentials, endpoints, ...): tell them as ours.

    That a file is not there goes through, for the caller to say what it means.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, RayrankError):
        raise
    except Exception as error:
        raise error_class(f"{what}: {str(error) or type(error).__name__}") from error


def _link_into_place(data: bytes, target: str) -> bool:
    """A link appears with its content or not at all, and never over another."""
    beside = f"{target}.{uuid.uuid4().hex}{_LEFTOVER}"
    Path(beside).write_bytes(data)
    try:
        os.link(beside, target)
    except FileExistsError:
        return False
    finally:
        Path(beside).unlink()
    return True


def _to_disk(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locate(url: str, error_class: type[RayrankError]) -> tuple[Any, str]:
    try:
        return cast("tuple[Any, str]", fsspec.core.url_to_fs(url))
    except ImportError as missing:
        # fsspec knows the protocol but its package is not installed; pyarrow carries some of them itself.
        try:
            filesystem, path = pyarrow.fs.FileSystem.from_uri(url)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise error_class(f"{url}: {missing}") from missing
        except OSError as error:
            raise error_class(f"{url}: can't be reached: {error}") from error
        return ArrowFSWrapper(filesystem), path
    except ValueError as error:
        raise error_class(f"{url}: {error}") from error


def _url(fs: Any, path: str) -> str:
    """What leads to the same place from every process: a plain absolute path where it is local."""
    return path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


def _source_file(url: str, info: dict[str, Any]) -> SourceFile:
    return SourceFile(url, info["size"], _identity(info), hive_partitions(url))


def _identity(info: dict[str, Any]) -> str:
    keys = ("ETag", "etag", "content_md5", "mtime", "LastModified")
    changed = next((info[key] for key in keys if info.get(key)), "")
    if isinstance(changed, float):
        changed = datetime.fromtimestamp(changed, UTC).isoformat()
    return f"{info['size']} bytes, {str(changed).strip(chr(34))}"


def _reason_to_leave_out(name: str, root: str | None, suffixes: tuple[str, ...], size: int) -> str | None:
    if root is not None:
        if any(part.startswith(("_", ".")) for part in name.removeprefix(root).split("/")):
            return "a name that begins with _ or . is a marker's"
        if not name.lower().endswith(suffixes):
            return f"ends in none of {', '.join(suffixes)}"
    return "empty" if size == 0 else None


def _explain(left_out: dict[str, str]) -> str:
    if not left_out:
        return ""
    name, reason = next(iter(left_out.items()))
    return f" but {len(left_out)} left out, such as {name} ({reason})"
