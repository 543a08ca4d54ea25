"""How large the pages of a Parquet column are, told by their headers: a footer tells of whole columns alone.

Headers are in Thrift's compact protocol: PageHeader in parquet.thrift, https://github.com/apache/parquet-format.
"""

from collections.abc import Iterator
from typing import IO, Any, NamedTuple

_HEADER_BYTES = 1 << 12
_LARGEST_HEADER_BYTES = 1 << 24
"""A header may hold the smallest and the largest value of its page."""
_DICTIONARY_PAGE = 2
_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(13)


class Page(NamedTuple):
    is_dictionary: bool
    size_bytes: int
    """Decompressed."""


def pages(stream: IO[bytes], chunk: Any) -> Iterator[Page]:
    """Of a column in a row group. chunk: its ColumnChunkMetaData. Raises ValueError for what is no header."""
    offsets = (chunk.dictionary_page_offset, chunk.data_page_offset)
    place = min(offset for offset in offsets if offset)
    stop = place + chunk.total_compressed_size
    while place < stop:
        fields, length = _header(stream, place, stop)
        kind, size_bytes, compressed = (fields.get(number, -1) for number in (1, 2, 3))
        if size_bytes < 0 or compressed < 0:
            raise ValueError("a page without its size")
        yield Page(kind == _DICTIONARY_PAGE, size_bytes)
        place += length + compressed


def _header(stream: IO[bytes], place: int, stop: int) -> tuple[dict[int, int], int]:
    """The numbers of a header by their fields, and how many bytes it has."""
    size = _HEADER_BYTES
    while True:
        stream.seek(place)
        data = stream.read(min(size, stop - place))
        reader = _Reader(data)
        try:
            return reader.struct(), reader.place
        except IndexError as error:  # it goes on
            if size >= _LARGEST_HEADER_BYTES or place + size >= stop:
                raise ValueError("a page's header that does not end") from error
            size *= 4


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self.place = data, 0

    def struct(self, depth: int = 0) -> dict[int, int]:
        """Its integers by their field numbers; all else is passed over."""
        fields: dict[int, int] = {}
        number = 0
        if depth > 8:
            raise ValueError("a page's header that nests")
        while (head := self._byte()) & 15:
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            kind = head & 15
            if kind in (_I16, _I32, _I64):
                fields[number] = self._zigzag()
            elif kind not in (_TRUE, _FALSE):  # which are in the head
                self._skip(kind, depth)
        return fields

    def _skip(self, kind: int, depth: int) -> None:
        if kind in (_TRUE, _FALSE, _BYTE):
            self._pass(1)
        elif kind in (_I16, _I32, _I64):
            self._varint()
        elif kind == _DOUBLE:
            self._pass(8)
        elif kind == _BINARY:
            self._pass(self._varint())
        elif kind == _STRUCT:
            self.struct(depth + 1)
        else:  # no list or map stands in a page's header
            raise ValueError("a page's header of another form")

    def _byte(self) -> int:
        self._pass(1)
        return self._data[self.place - 1]

    def _pass(self, size: int) -> None:
        self.place += size
        if self.place > len(self._data):
            raise IndexError

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value, shift = value | (byte & 127) << shift, shift + 7
            if shift > 63:
                raise ValueError("a page's header of another form")
        return value | byte << shift

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
