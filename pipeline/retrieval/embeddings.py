"""Embeddings of passages and queries, kept as a product of their own: any Parquet reader reads them.

OUTPUT/embeddings/SOURCE/passages/SHARD.parquet, a row a vector, ordered by passage id; queries likewise, in
the order of the input:
    passage_id (query_id): as it came; window: int32, from 0 (0 alone where passages are not parted); hash: 16
    bytes, BLAKE2b of the text in UTF-8, without what the model's prompts add; embedding: fixed-size list of
    float32 or float16, as the checkpoint gives it (normalized where the checkpoint says so)
A later job takes from here, by `hash`, what it need not compute: `reuse`.

OUTPUT/_work/SOURCE/shared/passages/NNNNNN.parquet, of the same form: texts that stand in several shards
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError, ScoringError, fields_under
from pipeline.retrieval.config import DenseConfig
from pipeline.retrieval.plan import ID, TEXT, Job, Kind
from pipeline.retrieval.shards import WORK, Done, Files, Shard, read_shard
from pipeline.retrieval.shared_texts import prefixes, read_shared
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.dtype import check_native
from pipeline.scoring.encoding import Role
from pipeline.scoring.lean_imports import lean_imports
from pipeline.tables.input.files import open_input
from pipeline.tables.input.limits import DEFAULT_LIMITS
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import check_version, stamped

ROLE: dict[Kind, Role] = {"passages": "passage", "queries": "query"}
_ARROW = {"float32": pa.float32(), "float16": pa.float16()}
_ROW_GROUP_BYTES = 8 * 2**20
_WAY_OUT = "the command that made them makes them again with --check-bytes"


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


def directory_of(source: str, kind: Kind) -> str:
    return f"embeddings/{source}/{kind}"


def embed(job: Job, source: str, kind: Kind, shard: str) -> Done:
    """Embed a shard, but for texts whose embeddings `reuse` has, and those that other shards share. Gives
    how many texts, and tokens.
    """
    rows = read_shard(job.output, kind, Shard.named(shard))
    hashes = rows["hash"].combine_chunks()
    reused = _reused(job, source, kind, hashes)
    shared = _known(job.output.url, _shared_directory(source, kind), job.identity, hashes)
    table, tokens = _embedded(job, source, kind, rows, reused | shared)
    files = write_vectors(job.output, f"{directory_of(source, kind)}/{shard}.parquet", table)
    again = sum(digest in reused for digest in hashes.to_pylist())
    return Done({"embedded": rows.num_rows - again, "reused": again, "tokens": tokens}, files)


def embed_shared(job: Job, source: str, kind: Kind, number: int) -> Done:
    """Embed texts that several shards share. Gives the tokens; `embed` counts the texts."""
    rows = read_shared(job, kind, number)
    reused = _reused(job, source, kind, rows["hash"].combine_chunks())
    table, tokens = _embedded(job, source, kind, rows, reused)
    files = write_vectors(job.output, f"{_shared_directory(source, kind)}/{number:06d}.parquet", table)
    return Done({"embedded": 0, "reused": 0, "tokens": tokens}, files)


def _shared_directory(source: str, kind: Kind) -> str:
    return f"{WORK}/{source}/shared/{kind}"


def _embedded(
    job: Job, source: str, kind: Kind, rows: pa.Table, known: dict[bytes, npt.NDArray[Any]]
) -> tuple[pa.Table, int]:
    """The rows' embeddings, and the tokens that those not `known` took."""
    dense = dense_of(job, source)
    hashes = rows["hash"].combine_chunks()
    new = np.flatnonzero([digest not in known for digest in hashes.to_pylist()])
    with fields_under(f"sources.{source}.dense.scorer"):
        scorer = scorer_of(dense.scorer, was_auto=source in job.auto)
    texts = rows[TEXT[kind]].take(pa.array(new)).to_pylist()
    try:
        made = scorer.embed_windows(texts, ROLE[kind])
    except ScoringError as error:
        raise _named(error, job, kind, rows.take(pa.array(new[error.index : error.index + 1]))) from error
    ends, counts = np.cumsum(made.windows).tolist(), made.windows.tolist()
    vectors = made.embeddings.astype(dense.dtype)
    each = {at: vectors[end - count : end] for at, end, count in zip(new.tolist(), ends, counts, strict=True)}
    parts = [each[at] if at in each else known[digest] for at, digest in enumerate(hashes.to_pylist())]
    return _table(rows, kind, parts, made.embeddings.shape[1], dense.dtype), made.tokens


class Room:
    """Memory that the vectors of one file after another are read into: new memory each time is dear."""

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
    try:
        with (
            open_input(url, DEFAULT_LIMITS) as stream,
            pq.ParquetFile(stream, page_checksum_verification=True) as file,
        ):
            check_version(file.schema_arrow, url, "embeddings", "Take another output.path", needed=True)
            others = file.read(["window", "hash"])
            kind = file.schema_arrow.field("embedding").type
            room = room or Room()
            values = room.array(others.num_rows, kind.list_size, kind.value_type.to_pandas_dtype())
            start = 0
            for group in range(file.num_row_groups):  # one after another, each while a cache holds it
                part = _values(file.read_row_group(group, ["embedding"], use_threads=False), url, start)
                values[start : start + len(part)] = part
                start += len(part)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{url}: no readable embeddings: {error}; {_WAY_OUT}") from error
    first = np.flatnonzero(others["window"].to_numpy() == 0)
    return Vectors(values, first, others["hash"].combine_chunks())


def _values(table: pa.Table, url: str, start: int) -> npt.NDArray[np.floating[Any]]:
    """(vectors, width), all finite. start: the file's rows before."""
    column = table["embedding"].combine_chunks()
    values: npt.NDArray[np.floating[Any]] = column.flatten().to_numpy(zero_copy_only=False)
    values = values.reshape(len(column), column.type.list_size)
    with np.errstate(over="ignore", invalid="ignore"):
        total = values.sum(dtype=np.float32)  # quicker than to ask each; that of finite ones may overflow
    suspect = values[:0] if np.isfinite(total) else values
    wrong = np.flatnonzero(~np.isfinite(suspect).all(axis=1))
    if len(wrong):
        row = start + int(wrong[0]) + 1
        raise InputError(
            f"{url} row {row}: an embedding that is not finite; remove the output's directory to embed again"
        )
    return values


@lru_cache(maxsize=1)
def scorer_of(config: ScorerConfig, *, was_auto: bool) -> Scorer:
    """One model a process, however many shards it embeds. was_auto: its dtype was found elsewhere."""
    if was_auto:
        check_native(config)
    with lean_imports():
        scorer = Scorer(config)
        _ = scorer.model
    return scorer


def dense_of(job: Job, source: str) -> DenseConfig:
    dense = job.config.sources[source].dense
    assert dense is not None
    return dense


def _table(rows: pa.Table, kind: Kind, parts: Sequence[npt.NDArray[Any]], width: int, dtype: str) -> pa.Table:
    counts = [len(part) for part in parts]
    at = np.repeat(np.arange(len(parts)), counts)
    window = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
    values = pa.array(np.concatenate([np.zeros((0, width), dtype), *parts]).ravel(), _ARROW[dtype])
    columns = {name: rows[name].take(pa.array(at)) for name in (ID[kind], "hash")}
    return pa.table(
        {
            ID[kind]: columns[ID[kind]],
            "window": pa.array(window, pa.int32()),
            "hash": columns["hash"],
            "embedding": pa.FixedSizeListArray.from_arrays(values, width),
        }
    )


def write_vectors(output: Directory, name: str, table: pa.Table) -> Files:
    """Vectors are written as they are: they have nothing that a compression or a dictionary could save.

    Without nulls and in row groups that a processor's cache holds they are read several times as fast.
    """
    column = table.schema.get_field_index("embedding")
    kind = table.schema.field(column).type
    element = pa.list_(pa.field("element", kind.value_type, nullable=False), kind.list_size)
    field = pa.field("embedding", element, nullable=False)
    table = table.set_column(column, field, table["embedding"].cast(element))
    table = table.replace_schema_metadata(stamped(table.schema, "embeddings").metadata)
    others = [name for name in table.schema.names if name != "embedding"]
    stream = io.BytesIO()
    pq.write_table(
        table,
        stream,
        compression=dict.fromkeys(others, "zstd") | {"embedding.list.element": "none"},
        use_dictionary=False,
        write_page_checksum=True,
        row_group_size=max(1, _ROW_GROUP_BYTES // (kind.list_size * kind.value_type.bit_width // 8)),
    )
    return {name: output.write(name, stream.getvalue())}


def _named(error: ScoringError, job: Job, kind: Kind, row: pa.Table) -> InputError:
    """The same error by the text's id and its place in the input, which the scorer does not know."""
    (place,) = row.select([ID[kind], "file", "row"]).to_pylist()
    url = job.table(kind).files[place["file"]].url
    return InputError(f"{url} row {place['row']}: {ROLE[kind]} {place[ID[kind]]!r}: {error.reason}")


@dataclass(frozen=True)
class _Kept:
    """Where embeddings stand that were made before: 12 bytes a text."""

    url: str
    names: tuple[str, ...]
    hashes: npt.NDArray[np.uint64]
    """The first 8 bytes of each hash, sorted."""
    files: npt.NDArray[np.int32]
    """For each of them the position in `names`."""


@lru_cache(maxsize=4)
def _kept(url: str, subdirectory: str, _job: str) -> _Kept:
    """_job: for whom; another one may find others in the same place."""
    output = Directory(f"{url}/{subdirectory}")
    names = tuple(sorted(name for name in output.names() if not name.startswith("_")))
    hashes = [np.zeros(0, np.uint64), *(prefixes(_read_hashes(f"{output.url}/{name}")) for name in names)]
    files = np.repeat(np.arange(len(names), dtype=np.int32), [len(each) for each in hashes[1:]])
    every = np.concatenate(hashes)
    order = np.argsort(every, kind="stable")
    return _Kept(output.url, names, every[order], files[order])


def _reused(job: Job, source: str, kind: Kind, hashes: pa.Array) -> dict[bytes, npt.NDArray[Any]]:
    """Content hash to vectors (windows, width), of those that the earlier job has."""
    if job.config.reuse is None:
        return {}
    return _known(job.config.reuse, directory_of(source, kind), job.identity, hashes)


def _known(url: str, subdirectory: str, job: str, hashes: pa.Array) -> dict[bytes, npt.NDArray[Any]]:
    """Content hash to vectors (windows, width), of those that stand there."""
    kept = _kept(url, subdirectory, job)
    wanted = np.unique(prefixes(hashes))
    first, last = (np.searchsorted(kept.hashes, wanted, side) for side in ("left", "right"))
    files = {int(file) for start, stop in zip(first, last, strict=True) for file in kept.files[start:stop]}
    known: dict[bytes, npt.NDArray[Any]] = {}
    every = set(hashes.to_pylist())
    for file in sorted(files):
        vectors = read_vectors(f"{kept.url}/{kept.names[file]}")
        for start, count in zip(vectors.first.tolist(), vectors.counts.tolist(), strict=True):
            digest = vectors.hashes[start].as_py()
            if digest in every:
                known[digest] = vectors.values[start : start + count]
    return known


def _read_hashes(url: str) -> pa.Array:
    try:
        with open_input(url, DEFAULT_LIMITS) as stream:
            hashes = pq.read_table(stream, columns=["hash"], page_checksum_verification=True)
            return hashes["hash"].combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{url}: no readable embeddings: {error}; {_WAY_OUT}") from error
