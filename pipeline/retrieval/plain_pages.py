"""Values of a Parquet file's list column as the bytes that stand there, where it can't hold anything else.

Arrow decodes two levels for each value of a list column: where a list begins, and what is null. That takes
most of the time in which vectors are read. Where nothing can be null and all lists are of one length the
levels say nothing. `write_vectors` makes such columns, with one page a row group. Whatever is not exactly so
is left to Arrow, which also tells what is wrong with it.

A page is a header in Thrift's compact protocol, the repetition levels and the definition levels, each after
its length, and the values: https://parquet.apache.org/docs/file-format/data-pages/
"""

import re
import zlib
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

_INT = rb"\x15([\x80-\xff]*[\x00-\x7f])"
_HEADER = re.compile(
    rb"\x15\x00"  # a data page
    + _INT * 3  # its size, its size when compressed, its checksum
    + rb"\x1c"
    + _INT  # how many values
    + rb"\x15\x00\x15\x06\x15\x06"  # as plain bytes, both levels as runs
)


def plain_values(
    stream: IO[bytes], file: pq.ParquetFile, group: int, leaf: str, dtype: npt.DTypeLike
) -> npt.NDArray[Any] | None:
    """(values,): a column's in a row group, checked by their checksum. None where Arrow must read them.

    stream: where `file` reads from. leaf: the column's path, NAME.list.element; its lists are of one length
    as far as `file` says. dtype: of the values.
    """
    row_group = file.metadata.row_group(group)
    paths = [row_group.column(column).path_in_schema for column in range(row_group.num_columns)]
    if leaf not in paths:
        return None
    column, levels = row_group.column(paths.index(leaf)), file.schema.column(paths.index(leaf))
    plain = column.compression == "UNCOMPRESSED" and set(column.encodings) == {"PLAIN", "RLE"}
    if not plain or (levels.max_definition_level, levels.max_repetition_level) != (1, 1):
        return None
    stream.seek(column.data_page_offset)
    page = stream.read(column.total_compressed_size)
    header = _HEADER.match(page)
    if header is None:
        return None
    _, size, checksum, values = (_integer(field) for field in header.groups())
    start, end = len(page) - size, len(page) - column.num_values * np.dtype(dtype).itemsize
    if (
        values != column.num_values
        or not header.end() < start < end
        or zlib.crc32(memoryview(page)[start:]) != checksum % 2**32
        or _after_levels(page, start) != end
    ):
        return None
    return np.frombuffer(page, dtype, offset=end)


def _integer(field: bytes) -> int:
    """Of seven bits a byte, the least ones first; its sign is the last bit."""
    number = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(field))
    return number >> 1 ^ -(number & 1)


def _after_levels(page: bytes, start: int) -> int:
    """Where the values begin, whose levels begin at `start`."""
    for _ in range(2):
        start += 4 + int.from_bytes(page[start : start + 4], "little")
    return start
