"""How long does the plan of a table of very many files take, and how much memory?

Run it from the repository root, on Linux:

    PYTHONPATH=. python benchmarks/plan.py [--files 1000000]

The listing is made up, in the form in which S3's client gives it, and the scans as well: QUERIES queries of
CANDIDATES candidates a file. What a real plan takes besides is the store's: a listing of a thousand names a
request, and three requests a file for where its queries stand, 32 files at a time.
"""

import argparse
import os
import platform
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
from fsspec import AbstractFileSystem

from pipeline.tables import candidates
from pipeline.tables.config import InputConfig
from pipeline.tables.formats import parquet
from pipeline.tables.input.files import SourceFile
from pipeline.tables.input.layout import Layout, scan_schema
from pipeline.tables.input.shards import FileScan

QUERIES, CANDIDATES = 10, 100
SHARD_PAIRS = 20_000


class Measured(NamedTuple):
    shards: int
    pairs: int
    seconds: float
    peak_mib: float
    """The most that the process held, libraries included."""


class Listing(AbstractFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """A bucket that holds nothing but names: listing://bucket/NUMBER_OF_FILES."""

    protocol: ClassVar[str] = "listing"

    def find(self, path: str, detail: bool = False, **_options: Any) -> dict[str, dict[str, Any]]:
        assert detail
        return dict(self._infos(path))

    def isdir(self, path: str) -> bool:
        return path.rpartition("/")[2].isdigit()

    def _infos(self, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        changed = datetime(2026, 11, 21, tzinfo=UTC)
        for number in range(int(path.rpartition("/")[2])):
            name = f"{path}/day=2026-11-{number % 30 + 1:02}/part-{number:08}.snappy.parquet"
            yield (
                name,
                {
                    "Key": name,
                    "LastModified": changed,
                    "ETag": f'"{number:032x}"',
                    "Size": 1_000_000 + number,
                    "StorageClass": "STANDARD",
                    "type": "file",
                    "size": 1_000_000 + number,
                    "name": name,
                },
            )


class Format:
    """Surveys without reading."""

    def __init__(self) -> None:
        self._starts = np.arange(QUERIES, dtype=np.int64) * CANDIDATES
        self._rows, self._pairs = self._starts + 1, np.full(QUERIES, CANDIDATES, np.int64)
        self._schema = scan_schema(pa.int64(), pa.int64(), {"day": pa.string()})

    def scan(self, file: SourceFile, _layout: Layout) -> FileScan:
        first = QUERIES * (file.size - 1_000_000)
        return FileScan(
            file=file,
            query_ids=pa.array(np.arange(first, first + QUERIES)),
            starts=self._starts,
            rows=self._rows,
            pairs=self._pairs,
            stop=QUERIES * CANDIDATES,
            schema=self._schema,
        )


def measure(files: int) -> Measured:
    """Plan a table of so many files, in a process that has done nothing else."""
    fsspec.register_implementation("listing", Listing)
    parquet.scan = Format().scan  # type: ignore[assignment]  # which names its parameters otherwise
    start = time.monotonic()
    plan = candidates.plan_table(InputConfig(path=f"listing://bucket/{files}"), {"day": "day"}, SHARD_PAIRS)
    seconds = time.monotonic() - start
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    return Measured(len(plan.shards), sum(shard.pairs for shard in plan.shards), seconds, peak)


def main() -> None:
    parser = argparse.ArgumentParser(description="The plan of very many files")
    parser.add_argument("--files", type=int, default=1_000_000)
    options = parser.parse_args()
    print(
        f"python {platform.python_version()}, pyarrow {version('pyarrow')}, {os.cpu_count()} cores;", end=" "
    )
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    found = measure(options.files)
    print(f"{options.files} files, {found.pairs} pairs, {found.shards} shards:", end=" ")
    print(f"{found.seconds:.0f} s, {found.peak_mib:.0f} MiB")


if __name__ == "__main__":
    main()
