"""Some queries of a table: whether it has them, and in what order their passages stand."""

from collections.abc import Collection, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.tables.input.shards import FileRange, FileScan, Int64Array, Shard


class SoughtQueries:
    """Query ids as judgments have them: text, whatever type the table's have."""

    def __init__(self, ids: Collection[str] = ()) -> None:
        self._ids = pa.array((each.encode() for each in ids), pa.binary())
        self.found = set[str]()
        """Those that were seen by `look`."""
        self._starts = dict[str, Int64Array]()
        """By file, where their rows begin, ascending."""

    def look(self, scan: FileScan) -> FileScan:
        """Pass a scan on, and remember which of its queries are sought."""
        if len(self._ids):
            held = _as_bytes(scan.query_ids)
            theirs = self._are_sought(held)
            self.found.update(each.decode() for each in held.filter(theirs).to_pylist())
            self._starts[scan.file.url] = scan.starts[theirs.to_numpy(zero_copy_only=False)]
        return scan

    def shards(self, shards: Iterable[Shard]) -> tuple[int, ...]:
        """The indices of those that hold queries that were seen."""
        return tuple(shard.index for shard in shards if any(map(self._holds, shard.file_ranges)))

    def _holds(self, file_range: FileRange) -> bool:
        starts = self._starts.get(file_range.file, np.zeros(0, np.int64))
        first, last = np.searchsorted(starts, (file_range.start, file_range.stop))
        return bool(first < last)

    def passages(self, rows: pa.Table) -> dict[str, list[str]]:
        """Of each sought query, its passages' ids in the order of the rows.

        rows: `query_id` and `passage_id`. An id that is no text can't be judged: it stands here with what
        can't be read replaced.
        """
        queries = _as_bytes(rows["query_id"])
        theirs = self._are_sought(queries)
        ids = queries.filter(theirs), _as_bytes(rows["passage_id"]).filter(theirs)
        found: dict[str, list[str]] = {}
        for query, passage in zip(*(each.to_pylist() for each in ids), strict=True):
            found.setdefault(query.decode(), []).append(passage.decode(errors="replace"))
        return found

    def _are_sought(self, ids: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
        return pc.is_in(ids, value_set=self._ids)


def _as_bytes(ids: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    return (ids.cast(pa.string()) if pa.types.is_integer(ids.type) else ids).cast(pa.binary())
