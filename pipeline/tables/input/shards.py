"""Pure: from where each query stands in the files to shards of whole queries."""

import hashlib
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from pipeline.errors import InputError
from pipeline.redaction import redacted
from pipeline.tables.input.deleted_rows import DeletedRows
from pipeline.tables.input.files import SourceFile
from pipeline.tables.input.partitions import Partitions

_FILES_AT_ONCE = 1024

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FileRange:
    """A stretch of one file: rows [start, stop) of a Parquet file, bytes [start, stop) of a text file."""

    file: str
    identity: str
    start: int
    stop: int
    first_row: int
    """1-based number of the row (text files: line) at `start`."""
    partitions: Partitions = field(default_factory=dict)
    """Columns that stand in the path alone, not in the file."""
    deleted: DeletedRows = field(default_factory=DeletedRows)
    """Of a Parquet file: those of its rows here that the table has deleted."""


class Shard(BaseModel):
    """The unit of work, of resume and of output: whole queries, in the input's order."""

    model_config = ConfigDict(frozen=True)

    index: int
    file_ranges: tuple[FileRange, ...]
    queries: int
    candidates: int
    """All that its stretches hold."""
    pairs: int
    """Those of them that are to be scored, at most: no more than top_k of a query."""

    @property
    def name(self) -> str:
        return f"shard-{self.index:06d}"

    @property
    def places(self) -> tuple[str, ...]:
        """Where its rows stand, for people."""
        return tuple(f"{redacted(each.file)} from row {each.first_row}" for each in self.file_ranges)

    @property
    def fingerprint(self) -> str:
        """Of what the shard holds: files with their identities, which tell of deleted rows, and the stretches
        of them.
        """
        deleted = {"file_ranges": {"__all__": {"deleted"}}}
        named = redacted(self.model_dump_json(include={"file_ranges"}, exclude=deleted))
        return hashlib.sha256(named.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class FileScan:
    """Where the queries of one file stand: entry i of each array is one run of rows with the same query.

    A run reaches to the start of the next, so that rows without a query id, which are rejected when they
    are read, belong to some run.
    """

    file: SourceFile
    query_ids: pa.Array
    """Null in the one run of a file in which no row has an id."""
    starts: Int64Array
    rows: Int64Array
    pairs: Int64Array
    stop: int
    schema: pa.Schema
    """Of the columns the run will have from this file: query_id, passage_id, kept (a struct)."""
    untold: dict[str, pa.DataType] = field(default_factory=dict)
    """Of kept columns without any value here, which `schema` has as null: the types that they were given."""
    needed: dict[str, str | None] = field(default_factory=dict)
    """Columns that some row of the table must have: None where a row here has one, else what to say where
    none has."""
    has_candidates: bool = True
    """Whether `pairs` are more than rows without a list."""


@dataclass
class _Open:
    """The shard being filled."""

    file_ranges: list[FileRange] = field(default_factory=list)
    queries: int = 0
    candidates: int = 0
    pairs: int = 0

    def closed(self, index: int) -> Shard:
        return Shard(
            index=index,
            file_ranges=tuple(self.file_ranges),
            queries=self.queries,
            candidates=self.candidates,
            pairs=self.pairs,
        )


def cut_shards(
    scans: Iterable[FileScan], shard_pairs: int, top_k: int | None = None, *, names_are_theirs: bool = True
) -> Iterator[Shard]:
    """Shards of up to `shard_pairs` candidates, in order; a query larger than that makes a shard of its own.

    A query that goes on at the top of the next file stays whole. names_are_theirs: whether users name the
    files, not a lakehouse. Raises InputError, naming both places, where a query's rows stand apart; it
    notices at the end, after the last shard.
    """
    seen = _SeenQueries(names_are_theirs=names_are_theirs)
    shard, index, last_id = _Open(), 0, None
    for scan in scans:
        continues = last_id is not None and scan.query_ids[0].as_py() == last_id
        seen.add(scan, skip_first=continues)
        if scan.query_ids[-1].is_valid:
            last_id = scan.query_ids[-1].as_py()
        ends = np.cumsum(scan.pairs)
        run = 0
        while run < len(scan.starts):
            done = int(ends[run - 1]) if run else 0
            stop = int(np.searchsorted(ends, done + shard_pairs - shard.candidates, side="right"))
            # The next file may go on with the query that stood before a file without ids: both stay here.
            stuck = run == 0 and (continues or not scan.query_ids[0].is_valid)
            if stop <= run and shard.file_ranges and not stuck:
                yield shard.closed(index)
                shard, index = _Open(), index + 1
                continue
            stop = max(stop, run + 1)
            _extend(shard, scan, run, stop, top_k)
            shard.queries -= continues and run == 0
            run = stop
    if shard.file_ranges:
        yield shard.closed(index)
    seen.check()


def _extend(shard: _Open, scan: FileScan, run: int, stop: int, top_k: int | None) -> None:
    end = int(scan.starts[stop]) if stop < len(scan.starts) else scan.stop
    shard.file_ranges.append(
        FileRange(
            file=scan.file.url,
            identity=scan.file.identity,
            start=int(scan.starts[run]),
            stop=end,
            first_row=int(scan.rows[run]),
            partitions=scan.file.partitions,
            deleted=scan.file.deleted.within(int(scan.starts[run]), end),
        )
    )
    shard.queries += stop - run - scan.query_ids[run:stop].null_count
    held = scan.pairs[run:stop]
    shard.candidates += int(held.sum())
    shard.pairs += int((held if top_k is None else np.minimum(held, top_k)).sum())


class _SeenQueries:
    """Notices a query that comes again, at 16 bytes a query and 16 a file."""

    def __init__(self, *, names_are_theirs: bool) -> None:
        self._names_are_theirs = names_are_theirs
        self._hashes: list[npt.NDArray[np.uint64]] = []
        self._rows: list[Int64Array] = []
        self._files: list[str] = []
        self._counts = array("q")
        """Of each file, its queries."""
        self._new: list[tuple[pa.Array, Int64Array]] = []
        """Ids and rows of files that are taken together, since files may be many and small."""

    def add(self, scan: FileScan, skip_first: bool) -> None:
        ids = scan.query_ids[int(skip_first) :].drop_null()
        if len(ids):
            self._new.append((ids, scan.rows[len(scan.rows) - len(ids) :]))
        self._files.append(scan.file.url)
        self._counts.append(len(ids))
        if len(self._new) == _FILES_AT_ONCE:
            self._take_in()

    def _take_in(self) -> None:
        if self._new:
            ids = pa.concat_arrays([_of_one_width(ids) for ids, _ in self._new])
            self._hashes.append(pd.util.hash_array(ids.to_numpy(zero_copy_only=False), categorize=False))
            self._rows.append(np.concatenate([rows for _, rows in self._new]))
            self._new = []

    def check(self) -> None:
        self._take_in()
        hashes = np.concatenate(self._hashes) if self._hashes else np.zeros(0, np.uint64)
        order = np.argsort(hashes, kind="stable")
        again = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
        if again.size:
            first, second = self._place(int(order[again[0]])), self._place(int(order[again[0] + 1]))
            raise InputError(
                f"a query's candidates stand apart: its rows begin at {first} and again at {second}."
                f" {again.size} such places; {self._way_out()}"
            )

    def _way_out(self) -> str:
        """Files are read in the order of their names, which need not be the one of their numbers."""
        by_number = sorted(self._files, key=_with_numbers)
        late = next(
            (at for at, (a, b) in enumerate(zip(self._files, by_number, strict=True)) if a != b), None
        )
        if late is None or not self._names_are_theirs:
            return "sort the table by query id, or have pipeline.prepare make one of it"
        name, before = (file.rpartition("/")[2] for file in (self._files[late], by_number[late]))
        return (
            f"files are read in the order of their names, {name} before {before}: if the table is sorted"
            " in the order of their numbers, name them with as many digits each (part-02, part-10), else"
            " sort the table by query id"
        )

    def _place(self, position: int) -> str:
        file = int(np.searchsorted(np.cumsum(self._counts), position, side="right"))
        return f"{self._files[file]} row {np.concatenate(self._rows)[position]}"


def _of_one_width(ids: pa.Array) -> pa.Array:
    """Integers as int64, so that the same id has the same hash in every file."""
    return ids.cast(pa.int64(), safe=False) if pa.types.is_integer(ids.type) else ids


def _with_numbers(name: str) -> list[tuple[str, int]]:
    """A key that sorts part-2 before part-10."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]
