"""The score table beside a run: what each pair scored, by the content of its texts, for a later run to reuse.

OUTPUT/scores/NAME.parquet, a row a scored pair, also those that top_k cut off, in no order to rely on:
    query: uint64, the first 8 bytes of BLAKE2b of the query; pair: 16 bytes, BLAKE2b of the query's length in
    bytes (8 bytes, little-endian), the query and the passage, in UTF-8 as the model was given them;
    score, query_cut, passage_cut, window, score_N, raw_score: as in the run
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import check_version
from pipeline.tables.output.markers import markers
from pipeline.tables.output.run import parquet_bytes
from pipeline.tables.schema import result_schema

_SCORES = "scores"
_WAY_OUT = "leave reuse out to score every pair"


def hash_pairs(queries: Iterable[str], passages: Iterable[str]) -> pa.Table:
    """Of (query, passage) pairs: the columns `query` and `pair` of a score table."""
    known: dict[str, tuple[int, blake2b]] = {}
    query_hashes, pair_hashes = [], []
    for query, passage in zip(queries, passages, strict=True):
        if query not in known:
            data = query.encode()
            begun = blake2b(len(data).to_bytes(8, "little") + data, digest_size=16)
            known[query] = (int.from_bytes(blake2b(data, digest_size=8).digest(), "little"), begun)
        query_hash, begun = known[query]
        pair = begun.copy()
        pair.update(passage.encode())
        query_hashes.append(query_hash)
        pair_hashes.append(pair.digest())
    return pa.table(
        {"query": pa.array(query_hashes, pa.uint64()), "pair": pa.array(pair_hashes, pa.binary(16))}
    )


def write_scores(output: Directory, name: str, hashes: pa.Table, results: pa.Table) -> None:
    """hashes: `hash_pairs`; results: a `result_schema` row each."""
    table = pa.table([*hashes.columns, *results.columns], schema=pa.schema([*hashes.schema, *results.schema]))
    output.write(f"{_SCORES}/{name}.parquet", parquet_bytes(table, "scores"))


@dataclass(frozen=True)
class PreviousScores:
    """The score table of another run, and in which of its shards each query stands: 12 bytes a query."""

    url: str
    names: tuple[str, ...]
    queries: npt.NDArray[np.uint64]
    """Sorted; a query that stands in several shards is here for each."""
    shards: npt.NDArray[np.int32]
    """For each of `queries` the position in `names`."""

    @classmethod
    def of(cls, url: str) -> "PreviousScores":
        """Of the run at `url`, which `check_previous` has let pass."""
        output = Directory(url)
        names, queries = [], []
        for report in markers(output):
            names.append(report.name)
            queries.append(np.frombuffer(report.query_hashes, np.uint64))
        shards = np.repeat(np.arange(len(names), dtype=np.int32), [len(each) for each in queries])
        every = np.concatenate([np.zeros(0, np.uint64), *queries])
        order = np.argsort(every, kind="stable")
        return cls(output.url, tuple(names), every[order], shards[order])

    def find(self, hashes: pa.Table, more_scores: Sequence[str]) -> pa.Table:
        """What each pair scored there.

        hashes: `hash_pairs`. Gives a `result_schema` row for each of them, null where unknown.
        """
        schema = result_schema(more_scores)
        wanted = np.unique(hashes["query"].to_numpy())
        first, last = (np.searchsorted(self.queries, wanted, side) for side in ("left", "right"))
        places = [self.shards[start:stop] for start, stop in zip(first, last, strict=True)]
        found = sorted({self.names[shard] for shard in np.concatenate([np.zeros(0, np.int32), *places])})
        output = Directory(self.url)
        tables = [pa.schema([("pair", pa.binary(16)), *schema]).empty_table()]
        tables += [self._read(output, name, tables[0].column_names) for name in found]
        previous = pa.concat_tables(tables).combine_chunks()
        at = pc.index_in(hashes["pair"].combine_chunks(), value_set=previous["pair"].combine_chunks())
        return previous.select(schema.names).take(at)

    def _read(self, output: Directory, name: str, columns: list[str]) -> pa.Table:
        file = f"reuse: {output.url}/{_SCORES}/{name}.parquet"
        data = output.read(f"{_SCORES}/{name}.parquet")
        if data is None:
            raise InputError(f"{file}: is gone, though its marker says that it was written; {_WAY_OUT}")
        try:
            table = pq.read_table(io.BytesIO(data))
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{file}: is damaged: {error}; {_WAY_OUT}") from error
        check_version(table.schema, file, "scores", _WAY_OUT.capitalize(), needed=True)
        if missing := [name for name in columns if name not in table.column_names]:
            raise InputError(f"{file}: has no column {missing[0]!r}; {_WAY_OUT}")
        return table.select(columns)


def distinct_queries(hashes: pa.Table) -> bytes:
    """The distinct `query` of some hashes, 8 bytes each: what a marker holds of them."""
    return np.unique(hashes["query"].to_numpy()).tobytes()
