"""Rows of a Parquet file by batches, whatever a small file would expand to.

Three things can: a page that compression made small, a value that a dictionary repeats, and both in a list.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.tables.input.arrow_rows import BATCH_ROWS
from pipeline.tables.input.arrow_types import has_dictionary_inside, plain, plain_bytes
from pipeline.tables.input.deleted_rows import kept
from pipeline.tables.input.files import open_input
from pipeline.tables.input.layout import refuse_repeated
from pipeline.tables.input.limits import Limits
from pipeline.tables.input.parquet_pages import pages
from pipeline.tables.input.shards import FileRange

_FREE_ROW_BYTES = 1024
"""What a row, or a value, may take: an id that a thousand rows share is rightly held once in a file."""


@dataclass(frozen=True)
class OpenParquet:
    file: pq.ParquetFile
    url: str
    limits: Limits
    stream: IO[bytes]

    @property
    def names(self) -> list[str]:
        """Its columns."""
        return list(self.file.schema_arrow.names)

    def rows(self, file_range: FileRange, columns: list[str]) -> Iterator[tuple[pa.Array, pa.Table]]:
        """The rows [start, stop) without the deleted ones, in batches with their numbers (1-based)."""
        deleted = file_range.deleted.positions()
        counts = [self._group(group).num_rows for group in range(self.file.num_row_groups)]
        ends = np.cumsum(counts)
        groups = [
            group
            for group, end in enumerate(ends)
            if end > file_range.start and end - counts[group] < file_range.stop
        ]
        row = int(ends[groups[0]] - counts[groups[0]]) if groups else 0
        for batch in self.batches(groups, columns):
            first, last = max(row, file_range.start), min(row + batch.num_rows, file_range.stop)
            if first < last:
                mask = kept(deleted, first, last)
                rows = pa.Table.from_batches([batch.slice(first - row, last - first)])
                if mask.any():
                    numbers = pa.array(np.arange(first + 1, last + 1)[mask])
                    yield numbers, rows if mask.all() else rows.filter(pa.array(mask))
            row += batch.num_rows
            if row >= file_range.stop:
                return

    def batches(self, groups: Iterable[int], columns: list[str]) -> Iterator[pa.RecordBatch]:
        """All rows of some row groups, `plain`; each batch takes a multiple of `max_page_bytes` at most.

        Raises InputError for a page, and for rows, that are larger than `limits` allow.
        """
        groups = list(groups)
        chunks = list(self._chunks(groups, columns))
        dictionary_bytes = max((self._checked(*each) for each in chunks), default=1)
        compressed = sum(chunk.total_compressed_size for _, chunk in chunks)
        values = min(BATCH_ROWS, self.limits.max_page_bytes // max(1, dictionary_bytes))
        rows = max(1, int(values / self._values_a_row(groups)))
        size = 0
        # Arrow can't put the dictionaries of several row groups together where they stand in other types.
        apart = any(has_dictionary_inside(each.type) for each in self.file.schema_arrow)
        for some in [[group] for group in groups] if apart else [groups]:
            for batch in self.file.iter_batches(rows, row_groups=some, columns=columns):
                size += max(0, sum(map(plain_bytes, batch.columns)) - _FREE_ROW_BYTES * batch.num_rows)
                self.limits.check_expansion(f"{self.url}: columns {', '.join(columns)}", size, compressed)
                # Views, which delta-rs writes, can't be filtered. Without columns, rows are all there is.
                yield _plain(batch) if columns else batch

    def _values_a_row(self, groups: list[int]) -> float:
        """In the row group and column that have most: a row may hold many candidates, and a text array ends
        at 2 GiB.
        """
        values = [
            self._group(group).column(at).num_values / max(1, self._group(group).num_rows)
            for group in groups
            for at in range(self.file.metadata.num_columns)
        ]
        return float(max(1.0, *values, 1.0))

    def _checked(self, group: int, chunk: Any) -> int:
        """The bytes of a column's dictionary. Raises InputError where one of its pages is too large."""
        place = f"{self.url}: column {chunk.path_in_schema!r}, row group {group}"
        size_bytes = chunk.total_uncompressed_size
        costly_bytes = size_bytes - _FREE_ROW_BYTES * chunk.num_values
        self.limits.check_expansion(place, costly_bytes, chunk.total_compressed_size)
        looks_through = size_bytes > self.limits.max_page_bytes
        if not (looks_through or (chunk.has_dictionary_page and chunk.physical_type == "BYTE_ARRAY")):
            return 1
        dictionary_bytes = 1
        try:
            for page in pages(self.stream, chunk):
                if page.size_bytes > self.limits.max_page_bytes:
                    what = f"a page of {page.size_bytes} bytes is too large"
                    raise self.limits.exceeded(place, what, "max_page_bytes")
                if page.is_dictionary:
                    dictionary_bytes = page.size_bytes
                if not looks_through:
                    break
        except ValueError as error:
            raise InputError(f"{place}: not a readable Parquet file: {error}") from error
        return dictionary_bytes

    def _chunks(self, groups: list[int], columns: list[str]) -> Iterator[tuple[int, Any]]:
        for group in groups:
            for at in range(self.file.metadata.num_columns):
                chunk = self._group(group).column(at)
                if any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in columns):
                    yield group, chunk

    def _group(self, group: int) -> Any:
        return self.file.metadata.row_group(group)


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(list(map(plain, batch.columns)), batch.schema.names)


@contextmanager
def opened(url: str, limits: Limits) -> Iterator[OpenParquet]:
    """Raises InputError for what is no Parquet, also where the block finds out."""
    with open_input(url, limits) as stream:
        try:
            # Spark's old timestamps reach from the year 1 to 9999, which in nanoseconds would wrap around.
            parquet = pq.ParquetFile(
                stream, page_checksum_verification=True, coerce_int96_timestamp_unit="us"
            )
            refuse_repeated(url, parquet.schema_arrow.names)
            yield OpenParquet(parquet, url, limits, stream)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
            why = str(error).rstrip(".")
            raise InputError(f"{url}: not a readable Parquet file (is its format right?): {why}") from error
