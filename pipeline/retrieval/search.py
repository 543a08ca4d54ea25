"""Pure: the best passages of each query of a shard, gathered from one shard of passages after another."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.ranking import rank

_MERGED_AT = 0.5
"""Times the rows that are kept: what is new before all but the best are let go, and the floor rises."""

IntArray = npt.NDArray[np.integer]
ScoreArray = npt.NDArray[np.float32]


class Best:
    """The top k of each of `queries` queries, exact: by score, equal ones by passage id.

    Memory is that of some k rows a query, and of one shard's hits, however many shards come.
    """

    def __init__(self, queries: int, k: int, id_type: pa.DataType) -> None:
        self._k = k
        hit = [("query_id", pa.int32()), ("score", pa.float32()), ("passage_id", id_type)]
        self._schema = pa.schema([*hit, ("shard", pa.int64()), ("row", pa.int32())])
        self._held = self._schema.empty_table()
        self._new: list[pa.Table] = []
        self._rows = 0
        self.floor: ScoreArray = np.full(queries, -np.inf, np.float32)
        """Of each query: what scores less is not among its best. Who knows a higher one may write it here."""

    def add(self, shard: int, queries: IntArray, scores: ScoreArray, ids: pa.Array, rows: IntArray) -> None:
        """Hits of one shard, in any order: each query's best k of it at least, but those below `floor`."""
        columns = [queries.astype(np.int32), scores.astype(np.float32), ids]
        columns += [np.full(len(rows), shard, np.int64), rows.astype(np.int32)]
        self._new.append(pa.table([pa.array(column) for column in columns], schema=self._schema))
        self._rows += len(rows)
        if self._rows > _MERGED_AT * self._k * len(self.floor):
            self._merge()

    def table(self) -> pa.Table:
        """`query` (int32), `score`, `passage_id`, `shard`, `row`, `rank`; by queries, then ranks."""
        self._merge()
        names = {"query_id": "query"}
        return self._held.rename_columns([names.get(name, name) for name in self._held.column_names])

    def _merge(self) -> None:
        rows = pa.concat_tables([self._held.select(self._schema.names), *self._new])
        rows = rows.take(pa.array(np.argsort(rows["query_id"].to_numpy(), kind="stable")))
        self._held = rank(rows, rows["score"].to_numpy(), self._k)
        self._new, self._rows = [], 0
        full = self._held.filter(pa.compute.equal(self._held["rank"], self._k))
        queries = full["query_id"].to_numpy()
        self.floor[queries] = np.maximum(self.floor[queries], full["score"].to_numpy())


def kth_largest(queries: IntArray, scores: ScoreArray, k: int, number: int) -> ScoreArray:
    """(number,): of each query the k-th largest of its scores, or -inf where it has fewer."""
    order = np.lexsort((-scores, queries))
    counts = np.bincount(queries, minlength=number)
    least = np.full(number, -np.inf, np.float32)
    full = counts >= k
    least[full] = scores[order[(np.cumsum(counts) - counts)[full] + k - 1]]
    return least


def merged(parts: list[pa.Table], k: int) -> pa.Table:
    """`Best.table`s of the same queries and of several parts of the passages as one."""
    rows = pa.concat_tables(parts)
    rows = rows.take(pa.array(np.argsort(rows["query"].to_numpy(), kind="stable")))
    names = ["query_id" if name == "query" else name for name in rows.column_names]
    ranked = rank(rows.rename_columns(names).drop_columns("rank"), rows["score"].to_numpy(), k)
    return ranked.rename_columns(["query" if name == "query_id" else name for name in ranked.column_names])
