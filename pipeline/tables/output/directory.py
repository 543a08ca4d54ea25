"""A directory of output, in which a file is written whole or not at all."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import OutputError
from pipeline.tables.outage import is_outage
from pipeline.tables.output.local_disk import LEFTOVER, link_into_place, make_directory, move_into_place
from pipeline.tables.output.sealed import Stamp, StampedStream
from pipeline.tables.storage import locate, place_of, speaks, store_errors
from pipeline.temporary_folder import spool

_JOB_WORKING_DIRECTORY = "/runtime_resources/working_dir_files/"
_PUTS_ARE_ATOMIC = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory"}
_WRITES_ON_CONDITION = {"s3", "s3a", "gs", "gcs", "memory"}
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

    def write(self, name: str, data: bytes) -> Stamp:
        """Make `name` hold `data`; a reader sees all of it or none. Raises OutputError where it can't."""
        with self._written(name):
            self._put(name, lambda place: self._fs.pipe_file(place, data))
        return Stamp.of(data)

    @contextmanager
    def writing(self, name: str) -> Iterator[StampedStream]:
        """A stream whose content becomes `name` when the block ends well, and nothing otherwise.

        It is kept in the temporary folder until then.
        """
        try:
            with spool(f"{self.url}/{name}: can't be written", named=True) as file:
                yield StampedStream(file)
                file.flush()
                with self._written(name):
                    self._put(name, lambda place: self._fs.put_file(file.name, place))
        except OSError as error:  # of what the block reads
            raise OutputError(f"{self.url}/{name}: can't be written: {error}") from error

    @contextmanager
    def _written(self, name: str) -> Iterator[None]:
        """Also that there is no such place is told as an error of writing to it."""
        try:
            with store_errors(OutputError, f"{self.url}/{name}: can't be written"):
                yield
        except OSError as error:
            raise OutputError(f"{self.url}/{name}: can't be written: {error}") from error

    def _put(self, name: str, write: Callable[[str], None]) -> None:
        """Let `write` make the file, and show it to readers when it is whole."""
        target = f"{self._path}/{name}"
        self._make_parent(target)
        if speaks(self._fs, _PUTS_ARE_ATOMIC):
            write(target)
            return
        # Elsewhere a file appears as soon as it is opened: write beside it, then rename. The leading "_"
        # hides what a killed writer leaves from every reader of such tables.
        parent, _, leaf = target.rpartition("/")
        beside = f"{parent}/_{leaf}.{uuid.uuid4().hex}{LEFTOVER}"
        try:
            write(beside)
            if isinstance(self._fs, LocalFileSystem):
                move_into_place(beside, target)
            else:
                self._fs.mv(beside, target)
                if self._fs.exists(beside):  # HDFS renames over no file, and WebHDFS does not tell
                    self._fs.rm_file(target)
                    self._fs.mv(beside, target)
        except Exception:
            with suppress(Exception):  # the first error is the one to tell
                self._fs.rm_file(beside)
            raise

    def _make_parent(self, target: str) -> None:
        parent = target.rpartition("/")[0]
        if isinstance(self._fs, LocalFileSystem):
            make_directory(Path(parent))
        else:
            self._fs.makedirs(parent, exist_ok=True)

    def remove_leftovers(self, subdirectory: str = "") -> None:
        """Remove what writers that were killed left in `subdirectory`."""
        for name in self.names(subdirectory):
            if name.startswith("_") and name.endswith(LEFTOVER):
                self.remove_file(f"{subdirectory}/{name}" if subdirectory else name)

    def create(self, name: str, data: bytes) -> bool:
        """Make `name` hold `data` unless it is there already: False. Of several who try at once one succeeds.

        `data` must differ from writer to writer: a write whose answer was lost is known by it. On stores
        without a conditional write (all but local disks, S3 and its like, and GCS) two may succeed.
        """
        target = f"{self._path}/{name}"
        with self._written(name):
            self._make_parent(target)
            if isinstance(self._fs, LocalFileSystem):
                return link_into_place(data, target)
            self._fs.invalidate_cache()
            if speaks(self._fs, _WRITES_ON_CONDITION):
                return self._create(target, data)
            if self._fs.exists(target):
                return False
            self._fs.pipe_file(target, data)
            return True

    def _create(self, target: str, data: bytes, tries: int = 3) -> bool:
        try:
            self._fs.pipe_file(target, data, mode="create")
        except OSError as error:
            if is_outage(error):  # it was waited out
                raise
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
            raise self._no_directory(name) from error

    def names(self, subdirectory: str = "") -> set[str]:
        """The names of the entries in `subdirectory`; none where there is no such directory."""
        return set(self._entries(subdirectory))

    def files(self, subdirectory: str = "") -> set[str]:
        """The names of its files, hidden ones too."""
        entries = self._entries(subdirectory).items()
        return {name for name, info in entries if info["type"] != "directory"}

    def sizes(self, subdirectory: str = "") -> dict[str, int]:
        """The files that `subdirectory` shows to readers, each with its bytes, from one listing.

        A name that begins with "_" or "." is hidden, as that of a file that is being written.
        """
        entries = self._entries(subdirectory).items()
        files = {name: int(info.get("size") or 0) for name, info in entries if info["type"] != "directory"}
        return {name: size for name, size in files.items() if not name.startswith(("_", "."))}

    def _entries(self, subdirectory: str) -> dict[str, dict[str, Any]]:
        self._fs.invalidate_cache()
        path = f"{self._path}/{subdirectory}".rstrip("/")
        try:
            with store_errors(OutputError, f"{self.url}: can't be listed"):
                entries = self._fs.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        except NotADirectoryError as error:
            raise self._no_directory(subdirectory) from error
        if isinstance(self._fs, LocalFileSystem) and any(
            entry["name"] == path and entry["type"] != "directory" for entry in entries
        ):  # it lists a file as the file alone
            raise self._no_directory(subdirectory)
        return {entry["name"].rstrip("/").rpartition("/")[2]: entry for entry in entries}

    def _no_directory(self, name: str) -> OutputError:
        """On the way to `name`, or in its place, lies a file. The first is told."""
        way = PurePosixPath(f"{self._path}/{name}")
        files = (str(place) for place in (*reversed(way.parents), way) if self._fs.isfile(str(place)))
        place = next(files, self._path)
        return OutputError(f"{place_of(self._fs, place)}: is a file; the output needs a directory there")
