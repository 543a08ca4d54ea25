"""The score table beside a run: what each pair scored, by the content of its texts, for a later run to reuse.

OUTPUT/scores/NAME.parquet, a row a scored pair, also those that top_k cut off, in no order to rely on:
    query: uint64, the first 8 bytes of BLAKE2b of the query; pair: 16 bytes, BLAKE2b of the query's length in
    bytes (8 bytes, little-endian), the query and the passage, in UTF-8 as the model was given them;
    score, query_cut, passage_cut, window, score_N, raw_score: as in the run; of a cascade, each of these once
    a level, level_N_score and so on, null where the level did not see the pair
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.manifest import Listing, Problem
from pipeline.tables.output.markers import ShardReport, markers
from pipeline.tables.output.run import parquet_bytes, written_table
from pipeline.tables.output.sealed import Stamp
from pipeline.tables.schema import result_schema

_SCORES = "scores"
SCORE_ALL = "to score every pair, leave reuse out, in an output that is new or was removed"
WAY_OUT = (
    "start its job again with --check-bytes, which mends it while its table is there; or, in an output that"
    " is new or was removed, name an older run (--set reuse=OUTPUT), or leave reuse out to score every pair"
)


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


def write_scores(output: Directory, name: str, hashes: pa.Table, results: pa.Table) -> dict[str, Stamp]:
    """hashes: `hash_pairs`; results: `result_schema`'s columns, once a level. Gives what was written."""
    table = pa.table([*hashes.columns, *results.columns], schema=pa.schema([*hashes.schema, *results.schema]))
    return {_file(name): output.write(_file(name), parquet_bytes(table, "scores"))}


@dataclass(frozen=True)
class PreviousScores:
    """The score table of another run, and in which of its shards each query stands: 12 bytes a query."""

    url: str
    files: tuple[tuple[str, Stamp], ...]
    """Of each shard, by their names in the output."""
    queries: npt.NDArray[np.uint64]
    """Sorted; a query that stands in several shards is here for each."""
    shards: npt.NDArray[np.int32]
    """For each of `queries` the position in `files`."""

    @classmethod
    def of(cls, url: str, job: str, shards: Iterable[str]) -> "PreviousScores":
        """Of the run at `url`, which `check_previous` has let pass, of this job and these of its shards.

        Raises InputError where a marker or a score file is missing or damaged, as far as a listing tells.
        """
        output = Directory(url)
        listing, files, queries = Listing(output, [_SCORES]), [], []
        for found in markers(output, job, shards):
            problem = found if isinstance(found, Problem) else _problem(listing, found)
            if problem is not None or isinstance(found, Problem):
                raise InputError(f"reuse: {output.url}/{problem}; {WAY_OUT}")
            files.append((_file(found.name), found.files[_file(found.name)]))
            queries.append(np.frombuffer(found.query_hashes, np.uint64))
        places = np.repeat(np.arange(len(files), dtype=np.int32), [len(each) for each in queries])
        every = np.concatenate([np.zeros(0, np.uint64), *queries])
        order = np.argsort(every, kind="stable")
        return cls(output.url, tuple(files), every[order], places[order])

    def find(self, hashes: pa.Table, more_scores: Sequence[str], prefix: str = "") -> pa.Table:
        """What each pair scored there.

        hashes: `hash_pairs`; prefix: of a level's columns there. Gives a `result_schema` row for each,
        null where unknown.
        """
        schema = result_schema(more_scores)
        names = {"pair": "pair"} | {f"{prefix}{name}": name for name in schema.names}
        wanted = np.unique(hashes["query"].to_numpy())
        first, last = (np.searchsorted(self.queries, wanted, side) for side in ("left", "right"))
        places = [self.shards[start:stop] for start, stop in zip(first, last, strict=True)]
        found = sorted({int(shard) for shard in np.concatenate([np.zeros(0, np.int32), *places])})
        output = Directory(self.url)
        tables = [pa.schema([("pair", pa.binary(16)), *schema]).empty_table()]
        for shard in found:
            table = _read(output, *self.files[shard], list(names)).rename_columns(list(names.values()))
            tables.append(table.filter(table["score"].is_valid()))  # a level sees some pairs alone
        previous = pa.concat_tables(tables).combine_chunks()
        at = pc.index_in(hashes["pair"].combine_chunks(), value_set=previous["pair"].combine_chunks())
        return previous.select(schema.names).take(at)


def _file(name: str) -> str:
    return f"{_SCORES}/{name}.parquet"


def _problem(listing: Listing, report: ShardReport) -> Problem | None:
    """What a listing tells of a shard's score file."""
    name = _file(report.name)
    return next(listing.problems({name: report.files[name]}), None)


def _read(output: Directory, file: str, stamp: Stamp, columns: list[str]) -> pa.Table:
    place = f"reuse: {output.url}/{file}"
    table = written_table(output.read(file), place, stamp, "scores", WAY_OUT)
    if missing := [name for name in columns if name not in table.column_names]:
        raise InputError(f"{place}: has no column {missing[0]!r}; {WAY_OUT}")
    return table.select(columns)


def distinct_queries(hashes: pa.Table) -> bytes:
    """The distinct `query` of some hashes, 8 bytes each: what a marker holds of them."""
    return np.unique(hashes["query"].to_numpy()).tobytes()
