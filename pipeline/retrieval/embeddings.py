"""Embeddings of passages and queries, kept as a product of their own: `vectors.py` has the form of the files.

OUTPUT/embeddings/SOURCE/passages/SHARD.parquet: ordered by passage id; queries likewise, in the order of the
input. A later job takes from here, by `hash`, what it need not compute: `reuse`.

OUTPUT/_work/SOURCE/shared/passages/NNNNNN.parquet, of the same form: texts that stand in several shards
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import log
from pipeline.errors import InputError, ScoringError
from pipeline.reporting.progress import clock_time
from pipeline.retrieval.config import DenseConfig
from pipeline.retrieval.plan import ID, TEXT, Job, Kind
from pipeline.retrieval.scorers import loaded, named
from pipeline.retrieval.shards import WORK, Done, Shard, read_shard
from pipeline.retrieval.shared_texts import prefixes, read_shared
from pipeline.retrieval.vectors import read_hashes, read_vectors, write_vectors
from pipeline.scoring.encoding import Role
from pipeline.scoring.family import EmbeddingEncoder
from pipeline.scoring.results import Embedded
from pipeline.tables.output.directory import Directory

ROLE: dict[Kind, Role] = {"passages": "passage", "queries": "query"}
_LOG_EVERY_S = 30.0
_LONGEST = 1e19
"""Of a vector: the product of two such ones, and what it is off by, are within float32."""
_ARROW = {"float32": pa.float32(), "float16": pa.float16()}


def directory_of(source: str, kind: Kind) -> str:
    return f"embeddings/{source}/{kind}"


def reused_directory(job: Job, source: str, kind: Kind) -> str | None:
    """The URL of the embeddings that a source takes from an earlier first stage; None where it takes none."""
    there = job.reused.get(source)
    return None if there is None else f"{job.config.reuse}/{directory_of(there, kind)}"


def embed(job: Job, source: str, kind: Kind, shard: str) -> Done:
    """Embed a shard, but for texts whose embeddings `reuse` has, and those that other shards share. Gives
    how many texts, how many of these were cut, and tokens.
    """
    rows = read_shard(job.output, kind, Shard.named(shard))
    hashes = rows["hash"].combine_chunks()
    reused = _reused(job, source, kind, hashes)
    shared = _known(f"{job.output.url}/{_shared_directory(source, kind)}", job.identity, hashes)
    table, made = _embedded(job, source, kind, rows, reused | shared)
    files = write_vectors(job.output, f"{directory_of(source, kind)}/{shard}.parquet", table)
    digests = hashes.to_pylist()
    again = sum(digest in reused for digest in digests)
    elsewhere = [at for at, digest in enumerate(digests) if digest in shared and digest not in reused]
    cut = _number_cut(made.cuts) + _cut(job, source, kind, rows.take(pa.array(elsewhere, pa.int64())))
    counts = {"embedded": rows.num_rows - again, "cut": cut, "reused": again, "tokens": made.tokens}
    return Done(counts, files)


def embed_shared(job: Job, source: str, kind: Kind, number: int) -> Done:
    """Embed texts that several shards share. Gives the tokens; `embed` counts the texts."""
    rows = read_shared(job, kind, number)
    reused = _reused(job, source, kind, rows["hash"].combine_chunks())
    table, made = _embedded(job, source, kind, rows, reused)
    files = write_vectors(job.output, f"{_shared_directory(source, kind)}/{number:06d}.parquet", table)
    return Done({"embedded": 0, "cut": 0, "reused": 0, "tokens": made.tokens}, files)


def _shared_directory(source: str, kind: Kind) -> str:
    return f"{WORK}/{source}/shared/{kind}"


def _embedded(
    job: Job, source: str, kind: Kind, rows: pa.Table, known: dict[bytes, npt.NDArray[Any]]
) -> tuple[pa.Table, Embedded]:
    """The rows' embeddings, and the tokens that those not `known` took."""
    dense = dense_of(job, source)
    hashes = rows["hash"].combine_chunks()
    new = np.flatnonzero([digest not in known for digest in hashes.to_pylist()])
    scorer = loaded(source, dense.scorer, was_auto=source in job.auto)
    texts = rows[TEXT[kind]].take(pa.array(new)).to_pylist()
    try:
        with named(source, dense.scorer):
            made = scorer.embed_windows(texts, ROLE[kind], Progress(source, kind, len(texts)))
    except ScoringError as error:
        raise _named(error.reason, job, kind, rows, new[error.index]) from error
    ends, windows = np.cumsum(made.windows).tolist(), made.windows.tolist()
    with np.errstate(over="ignore"):  # what is too large is told below
        vectors = made.embeddings.astype(dense.dtype)
    each = {at: vectors[end - many : end] for at, end, many in zip(new.tolist(), ends, windows, strict=True)}
    parts = [each[at] if at in each else known[digest] for at, digest in enumerate(hashes.to_pylist())]
    counts = [len(part) for part in parts]
    every = np.concatenate([vectors[:0], *parts])
    if (unfit := _first_unfit(every)) is not None:
        at = int(np.searchsorted(np.cumsum(counts), unfit, side="right"))
        raise _named(_why_unfit(every[unfit], source, dense.dtype), job, kind, rows, at)
    return _table(rows, kind, every, counts), made


def _first_unfit(vectors: npt.NDArray[Any]) -> int | None:
    """Which of the vectors (vectors, width) can't be searched; None where all can."""
    with np.errstate(over="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float32)
    unfit = np.flatnonzero(~(squares <= _LONGEST**2))
    return int(unfit[0]) if len(unfit) else None


def _why_unfit(vector: npt.NDArray[Any], source: str, dtype: str) -> str:
    if not np.isfinite(vector).all():
        return f"its embedding is too large for sources.{source}.dense.dtype {dtype}; set float32"
    return (
        f"its embedding has the length {np.linalg.norm(vector.astype(np.float64)):.1e}. Those of more than"
        f" {_LONGEST:.0e} can't be compared in float32: take a sources.{source}.dense.scorer.model that"
        " normalizes its embeddings"
    )


def _cut(job: Job, source: str, kind: Kind, rows: pa.Table) -> int:
    """How many texts are longer than the model reads."""
    if not rows.num_rows:
        return 0
    dense = dense_of(job, source)
    scorer = loaded(source, dense.scorer, was_auto=source in job.auto)
    with named(source, dense.scorer):
        encoder = cast("EmbeddingEncoder", scorer.encoder)
        _, _, cuts = encoder.encode_texts(rows[TEXT[kind]].to_pylist(), ROLE[kind])
    return _number_cut(cuts)


def _number_cut(cuts: npt.NDArray[np.int32]) -> int:
    return int(np.count_nonzero(cuts))


class Progress:
    """Logs every half minute how far the texts of a task are, and the time left at the speed so far."""

    def __init__(
        self, source: str, kind: Kind, texts: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fields = {"source": source, "of": kind, "texts": texts}
        self._clock = clock
        self._start = self._logged = clock()

    def __call__(self, share: float) -> None:
        """share: of the tokens that are done."""
        now = self._clock()
        if share and now - self._logged >= _LOG_EVERY_S:
            left = clock_time((now - self._start) * (1 - share) / share)
            log.info("embedding", **self._fields, done=f"{share:.0%}", left=left)
            self._logged = now


def dense_of(job: Job, source: str) -> DenseConfig:
    return job.config.dense[source]


def _table(rows: pa.Table, kind: Kind, vectors: npt.NDArray[Any], counts: Sequence[int]) -> pa.Table:
    """vectors: (vectors, width), of each row as many as `counts` says."""
    at = np.repeat(np.arange(len(counts)), counts)
    window = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
    values = pa.array(vectors.ravel(), _ARROW[vectors.dtype.name])
    columns = {name: rows[name].take(pa.array(at)) for name in (ID[kind], "hash")}
    return pa.table(
        {
            ID[kind]: columns[ID[kind]],
            "window": pa.array(window, pa.int32()),
            "hash": columns["hash"],
            "embedding": pa.FixedSizeListArray.from_arrays(values, vectors.shape[1]),
        }
    )


def _named(reason: str, job: Job, kind: Kind, rows: pa.Table, at: int) -> InputError:
    """An error of the text at `at`, by its id and its place in the input, which the scorer does not know."""
    (place,) = rows.select([ID[kind], "file", "row"]).slice(at, 1).to_pylist()
    url = job.table(kind).files[place["file"]].url
    return InputError(f"{url} row {place['row']}: {ROLE[kind]} {place[ID[kind]]!r}: {reason}")


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
def _kept(url: str, _job: str) -> _Kept:
    """_job: for whom; another one may find others in the same place."""
    output = Directory(url)
    names = tuple(sorted(name for name in output.names() if not name.startswith("_")))
    hashes = [np.zeros(0, np.uint64), *(prefixes(read_hashes(f"{output.url}/{name}")) for name in names)]
    files = np.repeat(np.arange(len(names), dtype=np.int32), [len(each) for each in hashes[1:]])
    every = np.concatenate(hashes)
    order = np.argsort(every, kind="stable")
    return _Kept(output.url, names, every[order], files[order])


def _reused(job: Job, source: str, kind: Kind, hashes: pa.Array) -> dict[bytes, npt.NDArray[Any]]:
    """Content hash to vectors (windows, width), of those that the earlier job has."""
    there = reused_directory(job, source, kind)
    return {} if there is None else _known(there, job.identity, hashes)


def _known(url: str, job: str, hashes: pa.Array) -> dict[bytes, npt.NDArray[Any]]:
    """Content hash to vectors (windows, width), of those that stand there."""
    kept = _kept(url, job)
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
                known[digest] = vectors.values[start : start + count].copy()  # else it keeps the whole file
    return known
