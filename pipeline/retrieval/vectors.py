"""Files of embeddings, which any Parquet reader reads: a row a vector.

passage_id (query_id): as it came; window: int32, from 0 (0 alone where passages are not parted); hash: 16
bytes, BLAKE2b of the text in UTF-8, without what the model's prompts add; embedding: fixed-size list of
float32 or float16, as the checkpoint gives it (normalized where the checkpoint says so)
"""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.retrieval.plain_pages import plain_values
from pipeline.retrieval.shards import Files
from pipeline.tables.input.files import open_input
from pipeline.tables.input.limits import DEFAULT_LIMITS
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import check_version, stamped

_ROW_GROUP_BYTES = 2 * 2**20
_ONE_PAGE_BYTES = 2**30
"""More than a row group has."""
_LEAF = "embedding.list.element"
_MADE_AGAIN = "the command that made them makes what is damaged again with --check-bytes"


@dataclass(frozen=True)
class Vectors:
    """The embeddings of a shard."""

    values: npt.NDArray[np.floating[Any]]
    """(vectors, width), all finite; the windows of a text together."""
    first: npt.NDArray[np.int64]
    """(texts,): where each text's vectors begin."""
    hashes: pa.Array
    """(vectors,)"""

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """(texts,): vectors of each."""
        return np.diff(self.first, append=len(self.values))

    def texts(self, start: int, stop: int) -> "Vectors":
        """Those of some texts, one at least."""
        first = self.first[start:stop]
        end = self.first[stop] if stop < len(self.first) else len(self.values)
        return Vectors(self.values[first[0] : end], first - first[0], self.hashes[first[0] : end])

    def rows(self, at: npt.NDArray[np.int64]) -> "Vectors":
        """Single vectors, as of a text each. Without hashes."""
        return Vectors(self.values[at], np.arange(len(at)), self.hashes[:0])


class Room(threading.local):
    """Memory, of each thread its own, that the vectors of one file after another are read into: new memory
    each time is dear.
    """

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def array(self, rows: int, width: int, dtype: Any) -> npt.NDArray[np.floating[Any]]:
        """Where the array before it was, unless this one is larger."""
        size = rows * width * np.dtype(dtype).itemsize
        if size > len(self._bytes):
            self._bytes = np.empty(size, np.uint8)
        values: npt.NDArray[np.floating[Any]] = self._bytes[:size].view(dtype).reshape(rows, width)
        return values


def read_vectors(url: str, room: Room | None = None) -> Vectors:
    """Of the file that `embed` wrote, in memory of their own or in `room`.

    Raises InputError where it is damaged or a value is not finite.
    """
    with (
        open_input(url, DEFAULT_LIMITS) as stream,
        _named_damage(url),
        pq.ParquetFile(stream, page_checksum_verification=True) as file,
    ):
        check_version(file.schema_arrow, url, "embeddings", "Take another output.path", needed=True)
        others = file.read(["window", "hash"])
        kind = file.schema_arrow.field("embedding").type
        room = room or Room()
        values = room.array(others.num_rows, kind.list_size, kind.value_type.to_pandas_dtype())
        start = 0
        plain = True
        for group in range(file.num_row_groups):  # one after another, each while a cache holds it
            found = plain_values(stream, file, group, _LEAF, values.dtype) if plain else None
            plain = found is not None  # of a file one row group is as another
            part = _by_arrow(file, group) if found is None else found.reshape(-1, kind.list_size)
            _check_finite(part, url, start)
            values[start : start + len(part)] = part
            start += len(part)
    first = np.flatnonzero(others["window"].to_numpy() == 0)
    return Vectors(values, first, others["hash"].combine_chunks())


def _by_arrow(file: pq.ParquetFile, group: int) -> npt.NDArray[np.floating[Any]]:
    """(vectors, width)"""
    column = file.read_row_group(group, ["embedding"], use_threads=False)["embedding"].combine_chunks()
    values: npt.NDArray[np.floating[Any]] = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), column.type.list_size)


def _check_finite(values: npt.NDArray[np.floating[Any]], url: str, start: int) -> None:
    """values: (vectors, width). start: the file's rows before."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = values.sum(dtype=np.float32)  # quicker than to ask each; that of finite ones may overflow
    suspect = values[:0] if np.isfinite(total) else values
    wrong = np.flatnonzero(~np.isfinite(suspect).all(axis=1))
    if len(wrong):
        row = start + int(wrong[0]) + 1
        # None is written: the file was changed, with sums of its pages that are right.
        raise InputError(f"{url} row {row}: an embedding that is not finite; {_MADE_AGAIN}")


def write_vectors(output: Directory, name: str, table: pa.Table) -> Files:
    """Vectors are written as they are: they have nothing that a compression or a dictionary could save.

    Without nulls, in row groups of one page that a processor's cache holds, they are read several times as
    fast: `plain_pages`.
    """
    column = table.schema.get_field_index("embedding")
    kind = table.schema.field(column).type
    element = pa.list_(pa.field("element", kind.value_type, nullable=False), kind.list_size)
    field = pa.field("embedding", element, nullable=False)
    table = table.set_column(column, field, table["embedding"].cast(element))
    table = table.replace_schema_metadata(stamped(table.schema, "embeddings").metadata)
    others = [name for name in table.schema.names if name != "embedding"]
    rows = max(1, _ROW_GROUP_BYTES // (kind.list_size * kind.value_type.bit_width // 8))
    stream = io.BytesIO()
    pq.write_table(
        table,
        stream,
        compression=dict.fromkeys(others, "zstd") | {_LEAF: "none"},
        use_dictionary=False,
        write_page_checksum=True,
        row_group_size=rows,
        data_page_size=_ONE_PAGE_BYTES,
        max_rows_per_page=rows,
    )
    return {name: output.write(name, stream.getvalue())}


def read_hashes(url: str) -> pa.Array:
    """Of its vectors. Raises InputError where it is damaged."""
    with open_input(url, DEFAULT_LIMITS) as stream, _named_damage(url):
        hashes = pq.read_table(stream, columns=["hash"], page_checksum_verification=True)
        return hashes["hash"].combine_chunks()


@contextmanager
def _named_damage(url: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{url}: no readable embeddings: {error}; {_MADE_AGAIN}") from error
