"""A shard as ONE row of an Arrow table, and back: the form in which it crosses from one process to another.

Columns are folded into lists, so that Ray Data neither splits nor shuffles a shard, and nothing is copied.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipeline.reranking.shard import EncodedShard, OpenShard
from pipeline.reranking.worker import Outcome
from pipeline.scoring.encoding import EncodedPairs
from pipeline.tables.input.shards import Shard
from pipeline.tables.output.attempts import Quarantined
from pipeline.tables.output.markers import LevelCounts, ShardReport

_TABLES = ("candidates", "texts", "hashes", "results", "rejects")


def shard_to_row(shard: Shard) -> dict[str, str]:
    """A shard that nobody has read yet, as an item of Ray Data."""
    return {"shard": shard.model_dump_json()}


def shard_of_row(row: pa.Table) -> Shard:
    return Shard.model_validate_json(row["shard"][0].as_py())


def open_to_row(shard: OpenShard) -> pa.Table:
    return pa.table(
        {
            "shard": [shard.shard.model_dump_json()],
            **{name: _fold(getattr(shard, name).to_struct_array()) for name in _TABLES},
            "counts": [[counts.model_dump_json() for counts in shard.counts]],
        }
    )


def open_of_row(row: pa.Table) -> OpenShard:
    return OpenShard(
        shard=shard_of_row(row),
        **{name: _table(row[name]) for name in _TABLES},
        counts=tuple(map(LevelCounts.model_validate_json, row["counts"][0].as_py())),
    )


def encoded_to_row(encoded: EncodedShard) -> pa.Table:
    pairs = encoded.pairs
    columns = {
        "sequences": _fold(pairs.sequences),
        "inputs": _fold(pairs.inputs.to_struct_array()),
        "pairs": _fold(pairs.pairs.to_struct_array()),
        "level_results": _fold(encoded.results.to_struct_array()),
        "encode_s": [encoded.encode_s],
    }
    row = open_to_row(encoded.open)
    return pa.table({**{name: row[name] for name in row.column_names}, **columns})


def encoded_of_row(row: pa.Table) -> EncodedShard:
    return EncodedShard(
        open=open_of_row(row),
        pairs=EncodedPairs(_unfold(row["sequences"]), _table(row["inputs"]), _table(row["pairs"])),
        results=_table(row["level_results"]),
        encode_s=row["encode_s"][0].as_py(),
    )


def of_row(row: pa.Table) -> Shard | OpenShard | EncodedShard:
    """The shard, as far as the stages before have come with it."""
    if "sequences" in row.column_names:
        return encoded_of_row(row)
    return open_of_row(row) if "counts" in row.column_names else shard_of_row(row)


def to_row(shard: Outcome | OpenShard | EncodedShard) -> pa.Table:
    if isinstance(shard, EncodedShard):
        return encoded_to_row(shard)
    return open_to_row(shard) if isinstance(shard, OpenShard) else outcome_to_row(shard)


def outcome_to_row(outcome: Outcome) -> pa.Table:
    """What the driver hears of a shard."""
    done = isinstance(outcome, ShardReport)
    return pa.table({"done": [done], "outcome": [outcome.model_dump_json()]})


def outcome_of_row(row: Mapping[str, Any]) -> Outcome:
    """row: as Ray Data's iter_rows gives it."""
    if row["done"]:
        return ShardReport.model_validate_json(row["outcome"])
    return Quarantined.model_validate_json(row["outcome"])


def is_outcome(row: pa.Table) -> bool:
    return "outcome" in row.column_names


def _fold(column: pa.Array | pa.ChunkedArray) -> pa.ListArray:
    """A whole column as one value: a list, in a column of one row."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pa.ListArray.from_arrays(pa.array([0, len(whole)], pa.int32()), whole)


def _unfold(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks().flatten()


def _table(column: pa.ChunkedArray) -> pa.Table:
    return pa.Table.from_struct_array(_unfold(column))
