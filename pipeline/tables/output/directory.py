"""A directory of output, in which a file is written whole or not at all."""

import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import OutputError
from pipeline.tables.storage import locate, place_of, store_errors

_JOB_WORKING_DIRECTORY = "/runtime_resources/working_dir_files/"
_PUTS_ARE_ATOMIC = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory"}
_WRITES_ON_CONDITION = {"s3", "s3a", "gs", "gcs", "memory"}
_LEFTOVER = ".tmp"
_PATTERN = "*?["
"""fsspec's `rm` and `mv` of what is no local disk would mean other files by such a path, too."""


class Directory:
    """A directory by its URL, to which files are written whole or not at all."""

    def __init__(self, url: str) -> None:
        self._fs, path = locate(url, OutputError)
        self._path = path.rstrip("/")
        self.url = place_of(self._fs, self._path)
        pattern = next((sign for sign in _PATTERN if sign in self._path), None)
        if pattern is not None and not isinstance(self._fs, LocalFileSystem):
            raise OutputError(f"{url}: has a {pattern!r}, which a store's client takes for a pattern")
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
            with store_errors(OutputError, f"{self.url}/{name}: can't be written"):
                self._put(spool.name, f"{self._path}/{name}")

    def _put(self, file: str, target: str) -> None:
        parent, _, leaf = target.rpartition("/")
        self._fs.makedirs(parent, exist_ok=True)
        if self._is_one_of(_PUTS_ARE_ATOMIC):
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
                with store_errors(OutputError, f"{self.url}/{subdirectory}/{name}: can't be removed"):
                    self._fs.rm_file(f"{self._path}/{subdirectory}/{name}")

    def create(self, name: str, data: bytes) -> bool:
        """Make `name` hold `data` unless it is there already: False. Of several who try at once one succeeds.

        `data` must differ from writer to writer: a write whose answer was lost is known by it. On stores
        without a conditional write (all but local disks, S3 and its like, and GCS) two may succeed.
        """
        target = f"{self._path}/{name}"
        with store_errors(OutputError, f"{self.url}/{name}: can't be written"):
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            if isinstance(self._fs, LocalFileSystem):
                return _link_into_place(data, target)
            self._fs.invalidate_cache()
            if self._is_one_of(_WRITES_ON_CONDITION):
                return self._create(target, data)
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

    def _is_one_of(self, protocols: set[str]) -> bool:
        spoken = self._fs.protocol
        return not protocols.isdisjoint([spoken] if isinstance(spoken, str) else spoken)

    def remove(self, subdirectory: str = "") -> None:
        """Remove the directory, or one in it, with all that it holds; nothing happens where there is none."""
        path = f"{self._path}/{subdirectory}".rstrip("/")
        with store_errors(OutputError, f"{path}: can't be removed"), suppress(FileNotFoundError):
            self._fs.rm(path, recursive=True)

    def remove_file(self, name: str) -> None:
        with store_errors(OutputError, f"{self.url}/{name}: can't be removed"), suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._path}/{name}")

    def read(self, name: str) -> bytes | None:
        """What `name` holds; None where there is no such file."""
        try:
            with store_errors(OutputError, f"{self.url}/{name}: can't be read"):
                return bytes(self._fs.cat_file(f"{self._path}/{name}"))
        except FileNotFoundError:
            return None
        except NotADirectoryError as error:
            raise OutputError(f"{self.url}: is a file; the output needs a directory") from error

    def names(self, subdirectory: str = "") -> set[str]:
        """The names of the entries in `subdirectory`; none where there is no such directory."""
        self._fs.invalidate_cache()
        try:
            with store_errors(OutputError, f"{self.url}: can't be listed"):
                entries = self._fs.ls(f"{self._path}/{subdirectory}".rstrip("/"), detail=False)
        except FileNotFoundError:
            return set()
        except NotADirectoryError as error:
            raise OutputError(f"{self.url}: is a file; the output needs a directory") from error
        return {entry.rstrip("/").rpartition("/")[2] for entry in entries}


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
