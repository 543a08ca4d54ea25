"""The shards of a first stage: stretches of the passages, or of the queries, as they were read.

OUTPUT/_work/passages/FFFFFF-BBBBBB.parquet, of file range F its B-th stretch; queries likewise:
    passage_id (query_id), passage (query); hash: 16 bytes, BLAKE2b of the text in UTF-8; id_hash: uint64;
    file: int32, its number, and row: int64, where it stood; kept.NAME (of passages). Passages stand in
    the order of their ids, so that the first of equal scores is the one that ranks first.
OUTPUT/_work/passages/dropped.parquet   the rows whose id stands in an earlier row: shard, row

Everything after reading takes a shard's rows without the dropped ones; `row` below is a place among these.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError, OutputError
from pipeline.retrieval.plan import Kind
from pipeline.tables.input.files import open_input
from pipeline.tables.input.limits import DEFAULT_LIMITS
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.sealed import Stamp

WORK = "_work"
_BLOCKS = 1_000_000

Files = dict[str, Stamp]
"""What was written, by the names in the output."""


class Done(NamedTuple):
    """What a task gives."""

    result: dict[str, Any]
    """What the driver hears."""
    files: Files
    """What its marker vouches for."""


@dataclass(frozen=True, order=True)
class Shard:
    """A stretch of a file range."""

    file_range: int
    block: int

    @property
    def name(self) -> str:
        return f"{self.file_range:06d}-{self.block:06d}"

    @property
    def number(self) -> int:
        """The shard as one integer."""
        return self.file_range * _BLOCKS + self.block

    @classmethod
    def of(cls, number: int) -> "Shard":
        return cls(*divmod(number, _BLOCKS))

    @classmethod
    def named(cls, name: str) -> "Shard":
        file_range, block = name.split("-")
        return cls(int(file_range), int(block))


def write_table(output: Directory, name: str, table: pa.Table) -> Files:
    """A table of the work, which no other version of this program reads."""
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd", write_page_checksum=True)
    return {name: output.write(name, stream.getvalue())}


def read_table(output: Directory, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Raises OutputError where it is gone or damaged: a start with the record there relies on it."""
    try:
        with open_input(f"{output.url}/{name}", DEFAULT_LIMITS) as stream:
            return pq.read_table(
                stream, columns=None if columns is None else list(columns), page_checksum_verification=True
            )
    except (InputError, pa.ArrowException, OSError) as error:
        raise OutputError(
            f"{output.url}/{name}: can't be read, though its marker says that it was written: {error}; start"
            " again with --check-bytes, which makes it again"
        ) from error


def write_shard(output: Directory, kind: Kind, shard: Shard, rows: pa.Table) -> Files:
    return write_table(output, f"{WORK}/{kind}/{shard.name}.parquet", rows)


def read_shard(
    output: Directory,
    kind: Kind,
    shard: Shard,
    columns: Sequence[str] | None = None,
    *,
    dropped: bool = False,
) -> pa.Table:
    """Its rows without those that were dropped. dropped: with them, before it is known which these are."""
    rows = read_table(output, f"{WORK}/{kind}/{shard.name}.parquet", columns)
    return rows if dropped else _without_dropped(output, kind, shard, rows)


def write_dropped(output: Directory, kind: Kind, shards: pa.Array, rows: pa.Array) -> Files:
    """The numbers of shards, and the places in them."""
    return write_table(output, f"{WORK}/{kind}/dropped.parquet", pa.table({"shard": shards, "row": rows}))


def _without_dropped(output: Directory, kind: Kind, shard: Shard, rows: pa.Table) -> pa.Table:
    dropped = read_table(output, f"{WORK}/{kind}/dropped.parquet")
    here = dropped["row"].to_numpy()[dropped["shard"].to_numpy() == shard.number]
    if not len(here):
        return rows
    kept = np.ones(rows.num_rows, bool)
    kept[here] = False
    return rows.filter(pa.array(kept))
