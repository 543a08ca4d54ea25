"""Texts that stand in several shards: embedded once, so that equal texts have one embedding, bit for bit,
whatever else is in a shard's batches.

OUTPUT/_work/passages/shared-NNNNNN.parquet: the columns of a shard, a row a text; queries likewise
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.retrieval.plan import ID, TEXT, Job, Kind
from pipeline.retrieval.reading import HASHES_AT_ONCE, stretches
from pipeline.retrieval.shards import WORK, Done, Files, Shard, read_shard, read_table, write_table


def share(job: Job, kind: Kind, shards: dict[str, int]) -> Done:
    """Find them. Gives how many files they fill. shards: names to rows."""
    files: Files = {}
    for number, rows in enumerate(stretches(_shared(job, kind, shards), job.config.shard_passages)):
        files |= write_table(job.output, _file(kind, number), rows)
    return Done({"files": len(files)}, files)


def read_shared(job: Job, kind: Kind, number: int) -> pa.Table:
    return read_table(job.output, _file(kind, number))


def prefixes(hashes: pa.Array) -> npt.NDArray[np.uint64]:
    """The first 8 bytes of each hash."""
    data = np.frombuffer(b"".join(hashes.to_pylist()), np.uint64)
    return data[::2]


def _shared(job: Job, kind: Kind, shards: dict[str, int]) -> Iterator[pa.Table]:
    """The first row of each, in the order of the shards. Holds one part of all hashes at a time."""
    parts = 1 + sum(shards.values()) // HASHES_AT_ONCE
    every = [Shard.named(name) for name in shards]
    for part in range(parts):
        held = [np.zeros(0, np.uint64), *(_hashes(job, kind, shard, part, parts) for shard in every)]
        values, counts = np.unique(np.concatenate(held), return_counts=True)
        wanted = values[counts > 1]
        for shard in every:
            if not len(wanted):
                break
            rows = read_shard(job.output, kind, shard, [ID[kind], TEXT[kind], "hash", "file", "row"])
            here, first = np.unique(prefixes(rows["hash"]), return_index=True)
            found = np.isin(here, wanted)
            if found.any():
                yield rows.take(pa.array(np.sort(first[found])))
            wanted = np.setdiff1d(wanted, here[found], assume_unique=True)


def _hashes(job: Job, kind: Kind, shard: Shard, part: int, parts: int) -> npt.NDArray[np.uint64]:
    """Those of a shard's texts that belong to this part, each once."""
    hashes: npt.NDArray[np.uint64] = np.unique(
        prefixes(read_shard(job.output, kind, shard, ["hash"])["hash"])
    )
    here: npt.NDArray[np.uint64] = hashes[hashes % parts == part]
    return here


def _file(kind: Kind, number: int) -> str:
    return f"{WORK}/{kind}/shared-{number:06d}.parquet"
