"""Exact search by embeddings: blocks of queries against shards of passages, on the device that actors hold.

One matrix product tells which passages can be among a query's best, with room for what it is off by
(`products.py`); the scores of those are then summed in float64. So equal vectors have equal scores, and no
score depends on how passages were parted or on the product's kernel.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from pipeline.retrieval.embeddings import directory_of
from pipeline.retrieval.plan import Job, Kind
from pipeline.retrieval.products import factor, lowered, product_dtype, products, products_off
from pipeline.retrieval.search import Best, ScoreArray, kth_largest
from pipeline.retrieval.shards import Shard, read_shard
from pipeline.retrieval.vectors import Room, Vectors, read_vectors
from pipeline.scoring.device import failure, resolve_device

_PART_VECTORS = 2048
"""Vectors that are compared with all queries of a block at once, or as many as one passage's windows are.
With twice as many a processor's cache no longer holds the products until they are looked at."""
_MANY = 0.25
"""Times the hits that are kept: where a part of the vectors has more, the floor of its shard should rise."""
_COLUMNS = 128
"""A query's products stand in so many columns, whose largest tells whether one of them is worth a look: what
stands one below the other is compared several times as fast as what stands side by side."""
_EXACT_ROWS = 512
_MOST_THREADS = 4
"""One less than the shards in memory."""

IntArray = npt.NDArray[np.int64]
Result = TypeVar("Result")


def search(job: Job, source: str, block: str, shards: list[str]) -> pa.Table:
    """The best of some shards for a shard of queries: `Best.table`. Raises DeviceError where a GPU failed."""
    device = resolve_device("cuda" if job.config.actors.num_gpus else "cpu")
    try:
        return _search(job, source, block, shards, device)
    except RuntimeError as error:
        if (broken := failure(device, error, "in a search")) is not None:
            raise broken from error
        raise


def _search(job: Job, source: str, block: str, shards: list[str], device: torch.device) -> pa.Table:
    cosine = source in job.by_cosine
    queries = _matrix(_vectors(job, source, "queries", block), cosine, device)
    best, room = Best(len(queries), job.depth(source), job.id_type("passages")), Room()

    def compared(name: str) -> tuple[int, IntArray, ScoreArray, pa.Array, IntArray]:
        shard = Shard.named(name)
        ids = read_shard(job.output, "passages", shard, ["passage_id"])["passage_id"].combine_chunks()
        vectors = _vectors(job, source, "passages", name, room)
        assert len(ids) == len(vectors.first), name
        hits, scores, rows = best_of(queries, vectors, best.floor, job.depth(source), cosine=cosine)
        return shard.number, hits, scores, ids.take(pa.array(rows)), rows

    for found in in_threads(compared, shards):
        best.add(*found)
    return best.table()


def in_threads(work: Callable[[str], Result], names: list[str]) -> Iterator[Result]:
    """What `work` gives for each name, in their order.

    Several names are in work at once, each by a thread that computes alone. Threads that share each step of a
    search wait for each other some hundred times a second: on a busy machine that took most of the time.
    """
    threads = torch.get_num_threads()
    workers = min(threads, _MOST_THREADS) + 1  # one may wait for a file
    each = max(1, threads // workers)
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(each,)) as pool:
        try:
            yield from pool.map(work, names)
        finally:
            torch.set_num_threads(threads)  # what a worker sets is the default of threads to come


def best_of(
    queries: torch.Tensor, vectors: Vectors, floor: ScoreArray, k: int, *, cosine: bool
) -> tuple[IntArray, ScoreArray, IntArray]:
    """(queries, scores, passages): each query's best k of the vectors at least, but those below its floor.

    queries: (queries, width), normalized where similarity is the cosine. floor: rises here as soon as the
    vectors tell that it may. Other threads may raise it too: what one of them undoes costs time alone.
    """
    found = []
    bounds, most = _parts(vectors)
    dtype = product_dtype(queries)
    ours = factor(queries, dtype)
    room = torch.empty(len(queries) * most, dtype=dtype, device=queries.device)
    top = torch.empty(len(queries), 0, device=queries.device)
    many = bool(np.isinf(floor).any())
    off = torch.zeros_like(ours.length)
    for first, stop in pairwise(bounds):
        part = vectors.texts(first, stop)
        theirs = factor(_matrix(part, cosine, queries.device), dtype)
        near = products(ours, theirs, part, room)
        off = torch.maximum(off, products_off(ours, theirs))
        if many and near.shape[1] >= k:  # the least of k products, wherever they stand, tells a floor
            top = torch.cat([top, near.topk(k, dim=1, sorted=False).values.float()], dim=1)
            top = top.topk(k, dim=1, sorted=False).values
            np.maximum(floor, lowered(top.amin(dim=1), off, dtype).cpu().numpy(), out=floor)
        least = torch.from_numpy(floor).to(queries.device)
        hits, passages = _at_least(near, lowered(least, off, dtype).to(dtype))
        many = len(hits) > _MANY * k * len(queries)
        found.append((hits, passages + first, near[hits, passages].float()))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int64)
    hits, passages, scores = (torch.cat(column).cpu() for column in zip(*found, strict=True))
    least = torch.from_numpy(kth_largest(hits.numpy(), scores.numpy(), k, len(queries)))
    least = lowered(lowered(least, off.cpu(), dtype), off.cpu(), dtype)
    worth = scores >= least[hits]
    hits_of, rows = hits[worth].numpy(), passages[worth].numpy()
    return hits_of, _exact(queries, vectors, hits_of, rows, cosine=cosine), rows


def _parts(vectors: Vectors) -> tuple[list[int], int]:
    """(the texts where parts begin, and the end; vectors of the largest part)."""
    begins = np.arange(0, len(vectors.values), _PART_VECTORS)
    bounds = np.unique(np.append(np.searchsorted(vectors.first, begins), len(vectors.first)))
    sizes = np.diff(np.append(vectors.first, len(vectors.values))[bounds])
    return bounds.tolist(), int(sizes.max(initial=0))


def _at_least(near: torch.Tensor, least: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(queries, passages) of the products that are not below `least`: few, so that most are not looked at."""
    missing = -near.shape[1] % _COLUMNS
    padded = torch.nn.functional.pad(near, (0, missing), value=-torch.inf) if missing else near
    rows = padded.view(len(near), -1, _COLUMNS)
    hits, column = (rows.amax(dim=1) >= least[:, None]).nonzero(as_tuple=True)
    some, row = (rows[hits, :, column] >= least[hits, None]).nonzero(as_tuple=True)
    passages = row * _COLUMNS + column[some]
    real = passages < near.shape[1]  # where `least` is -inf the padding is not below it
    return hits[some][real], passages[real]


def _exact(
    queries: torch.Tensor, vectors: Vectors, hits: IntArray, passages: IntArray, *, cosine: bool
) -> ScoreArray:
    """Each hit's score, of the passage's best window: as long as the sums of some vectors take, no longer."""
    counts = vectors.counts[passages]
    ends = np.cumsum(counts)
    of_hit = np.repeat(np.arange(len(hits)), counts)
    at = vectors.first[passages][of_hit] + np.arange(len(of_hit)) - (ends - counts)[of_hit]
    ours, sums = queries.cpu().numpy(), np.empty(len(of_hit))
    for start in range(0, len(of_hit), _EXACT_ROWS):
        some = slice(start, start + _EXACT_ROWS)
        theirs = _matrix(vectors.rows(at[some]), cosine, torch.device("cpu")).numpy()
        sums[some] = np.einsum("ij,ij->i", ours[hits[of_hit[some]]], theirs, dtype=np.float64)
    best: ScoreArray = (
        np.maximum.reduceat(sums, ends - counts).astype(np.float32) if len(hits) else sums.astype(np.float32)
    )
    return best


def _matrix(vectors: Vectors, cosine: bool, device: torch.device) -> torch.Tensor:
    matrix = torch.from_numpy(vectors.values.astype(np.float32, copy=False)).to(device)
    return torch.nn.functional.normalize(matrix, dim=1) if cosine else matrix


def _vectors(job: Job, source: str, kind: Kind, shard: str, room: Room | None = None) -> Vectors:
    return read_vectors(f"{job.output.url}/{directory_of(source, kind)}/{shard}.parquet", room)
