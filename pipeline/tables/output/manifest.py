"""Which files an output holds, by which it is seen what is missing, cut or strange. One listing tells it.

OUTPUT/_manifest/files.json    written before _SUCCESS
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

from pipeline.tables.output.directory import Directory
from pipeline.tables.output.sealed import DamagedError, Stamp, sealed, unsealed

MANIFEST = "_manifest/files.json"
_READ_THREADS, _READ_AT_ONCE = 16, 1024

Item = TypeVar("Item")
Found = TypeVar("Found")
Stamps = Mapping[str, Stamp]
"""Files by their names in the output, as `run/shard-000000.parquet`."""


class Problem(NamedTuple):
    """A file that is not as it was written."""

    file: str
    """By its name in the output."""
    what: str
    strange: bool = False
    """Nothing of the output's own: doing work again leaves it there."""

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"

    @property
    def shard(self) -> str:
        """The name of the shard whose file or marker it is, where it is one's."""
        return self.file.rpartition("/")[2].partition(".")[0]


class Volume(BaseModel):
    """What a folder shows to its readers."""

    model_config = ConfigDict(frozen=True)

    files: int = 0
    size: int = 0
    """Bytes of all of them."""

    @classmethod
    def of(cls, sizes: Iterable[int]) -> "Volume":
        each = list(sizes)
        return cls(files=len(each), size=sum(each))

    def plus(self, other: "Volume") -> "Volume":
        return Volume(files=self.files + other.files, size=self.size + other.size)


class Manifest(BaseModel):
    """Of a finished output. The stamps of a shard's files are in its marker."""

    model_config = ConfigDict(frozen=True)

    job: str = ""
    shards: int = 0
    """Of a job, by the identity of its record, whose files are named in its shards' markers."""
    folders: dict[str, Volume]
    files: dict[str, Stamp]
    """Those that no shard wrote."""


def write_manifest(output: Directory, manifest: Manifest) -> None:
    output.write(MANIFEST, sealed(manifest))


def read_manifest(output: Directory) -> Manifest | Problem:
    """The manifest, or what is wrong with it."""
    data = output.read(MANIFEST)
    if data is None:
        return Problem(MANIFEST, "is missing")
    try:
        return unsealed(data, Manifest)
    except DamagedError:
        return Problem(MANIFEST, "is damaged")


def volumes(stamps: Stamps, folders: Iterable[str]) -> dict[str, Volume]:
    """What the folders hold where these files are all there is."""
    return {
        folder: Volume.of(stamp.size for name, stamp in stamps.items() if _folder(name) == folder)
        for folder in folders
    }


class Listing:
    """The sizes of the files in some folders of an output, as they were when it was made."""

    def __init__(self, output: Directory, folders: Iterable[str]) -> None:
        self._sizes = {folder: output.sizes(folder) for folder in folders}

    def problems(self, stamps: Stamps) -> Iterator[Problem]:
        """Of files that stand in these folders: missing, or of another length."""
        for name, stamp in stamps.items():
            size = self._sizes[_folder(name)].get(name.rpartition("/")[2])
            if size is None:
                yield Problem(name, "is missing")
            elif size != stamp.size:
                yield Problem(name, f"has {size} bytes, and {stamp.size} were written")

    def differs(self, volumes: Mapping[str, Volume]) -> bool:
        return any(Volume.of(self._sizes[folder].values()) != volume for folder, volume in volumes.items())

    def strangers(self, own: Iterable[str], folders: Iterable[str]) -> Iterator[Problem]:
        """Files in these folders that are none of `own`: a reader would take them for the output's."""
        there = {f"{folder}/{name}" for folder in folders for name in self._sizes[folder]}
        for name in sorted(there.difference(own)):
            yield Problem(name, "is no file of this output", strange=True)


def look_into(output: Directory, file: str, stamp: Stamp) -> Problem | None:
    """What is wrong with a file's bytes: reads them all."""
    data = output.read(file)
    if data is None:
        return Problem(file, "is missing")
    return None if stamp.fits(data) else Problem(file, "holds other bytes than were written")


def in_threads(read: Callable[[Item], Found], items: Sequence[Item]) -> Iterator[Found]:
    """In the order of the items, of which there may be so many that not all is held at once."""
    with ThreadPoolExecutor(_READ_THREADS) as threads:
        for start in range(0, len(items), _READ_AT_ONCE):
            yield from threads.map(read, items[start : start + _READ_AT_ONCE])


def _folder(name: str) -> str:
    return name.rpartition("/")[0]
