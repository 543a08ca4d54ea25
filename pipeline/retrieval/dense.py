"""Exact search by embeddings: blocks of queries against shards of passages, on the device that actors hold.

One matrix product tells which passages can be among a query's best, with room for what float32 rounds; the
scores of those are then summed in float64. So equal vectors have equal scores, and no score depends on how
passages were parted or on the product's kernel.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle, pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from pipeline.retrieval.embeddings import directory_of
from pipeline.retrieval.plan import Job, Kind
from pipeline.retrieval.search import Best, ScoreArray, largest
from pipeline.retrieval.shards import Shard, read_shard
from pipeline.retrieval.vectors import Room, Vectors, read_vectors

_PART_VECTORS = 4096
"""Vectors that are compared with all queries of a block at once, or as many as one passage's windows are."""
_MANY = 0.25
"""Times the hits that are kept: where a part of the vectors has more, the floor of its shard should rise."""
_STRETCH = 128
"""Products whose largest tells whether one of them is worth a look."""
_EXACT_ROWS = 512
_MOST_AHEAD = 4
"""Shards in memory beside the one at hand."""
_ROUNDING = 1e-5
"""Of the product of two lengths: more than float32 is off in a sum of some thousand terms."""

IntArray = npt.NDArray[np.int64]


def search(job: Job, source: str, block: str, shards: list[str]) -> pa.Table:
    """The best of some shards for a shard of queries: `Best.table`."""
    cosine = source in job.by_cosine
    device = torch.device("cuda" if job.config.actors.num_gpus else "cpu")
    queries = _matrix(_vectors(job, source, "queries", block), cosine, device)
    best = Best(len(queries), job.depth(source), job.id_type("passages"))
    for shard, ids, vectors in _read_ahead(job, source, shards):
        hits, scores, rows = best_of(queries, vectors, best.floor, job.depth(source), cosine=cosine)
        best.add(shard.number, hits, scores, ids.take(pa.array(rows)), rows)
    return best.table()


def _read_ahead(job: Job, source: str, shards: list[str]) -> Iterator[tuple[Shard, pa.Array, Vectors]]:
    """Shards of passages, the next ones read while one is compared: as many as this process has threads."""

    def read(name: str, room: Room) -> tuple[Shard, pa.Array, Vectors]:
        shard = Shard.named(name)
        ids = read_shard(job.output, "passages", shard, ["passage_id"])["passage_id"].combine_chunks()
        vectors = _vectors(job, source, "passages", name, room)
        assert len(ids) == len(vectors.first), name
        return shard, ids, vectors

    ahead = min(_MOST_AHEAD, torch.get_num_threads())
    rooms = cycle([Room() for _ in range(ahead + 1)])  # of as many shards as are in memory
    with ThreadPoolExecutor(ahead) as pool:
        waiting: deque[Future[tuple[Shard, pa.Array, Vectors]]] = deque()
        for name in shards:
            waiting.append(pool.submit(read, name, next(rooms)))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def best_of(
    queries: torch.Tensor, vectors: Vectors, floor: ScoreArray, k: int, *, cosine: bool
) -> tuple[IntArray, ScoreArray, IntArray]:
    """(queries, scores, passages): each query's best k of the vectors at least, but those below its floor.

    queries: (queries, width), normalized where similarity is the cosine.
    """
    found = []
    bounds, most = _parts(vectors)
    room = torch.empty(len(queries) * most, device=queries.device)
    least = torch.from_numpy(floor).to(queries.device)
    top = torch.empty(len(queries), 0, device=queries.device)
    many = bool(torch.isinf(least).any())
    lengths = queries.norm(dim=1)
    rounding = torch.zeros_like(lengths)
    for first, stop in pairwise(bounds):
        part = vectors.texts(first, stop)
        matrix = _matrix(part, cosine, queries.device)
        products = _products(queries, matrix, part, room)
        rounding = torch.maximum(rounding, _ROUNDING * lengths * matrix.norm(dim=1).max())
        if many and products.shape[1] >= k:  # the least of k products, wherever they stand, is a floor
            top = torch.cat([top, products.topk(k, dim=1, sorted=False).values], dim=1)
            top = top.topk(k, dim=1, sorted=False).values
            least = torch.maximum(least, top.amin(dim=1))
        hits, passages = _at_least(products, least - rounding)
        many = len(hits) > _MANY * k * len(queries)
        found.append((hits, passages + first, products[hits, passages]))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int64)
    hits_of, rows, near = (torch.cat(column).cpu().numpy() for column in zip(*found, strict=True))
    at = largest(hits_of, near, k, len(queries), room=2 * rounding.cpu().numpy())
    return hits_of[at], _exact(queries, vectors, hits_of[at], rows[at], cosine=cosine), rows[at]


def _parts(vectors: Vectors) -> tuple[list[int], int]:
    """(the texts where parts begin, and the end; vectors of the largest part)."""
    begins = np.arange(0, len(vectors.values), _PART_VECTORS)
    bounds = np.unique(np.append(np.searchsorted(vectors.first, begins), len(vectors.first)))
    sizes = np.diff(np.append(vectors.first, len(vectors.values))[bounds])
    return bounds.tolist(), int(sizes.max(initial=0))


def _products(queries: torch.Tensor, matrix: torch.Tensor, part: Vectors, room: torch.Tensor) -> torch.Tensor:
    """(queries, passages): of each passage its best window's.

    room: what the products are written to, since memory that is new each time costs a fifth of their time.
    """
    out = room[: len(queries) * len(matrix)].view(len(queries), len(matrix))
    products = torch.matmul(queries, matrix.T, out=out)
    counts = part.counts
    if len(counts) == len(matrix):
        return products
    of_vector = torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(queries.device)
    maxima = torch.full((len(products), len(counts)), -torch.inf, device=queries.device)
    return maxima.scatter_reduce_(1, of_vector.expand(len(products), -1), products, "amax")


def _at_least(products: torch.Tensor, least: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(queries, passages) of the products that are not below `least`: few, so that most are not looked at."""
    missing = -products.shape[1] % _STRETCH
    padded = torch.nn.functional.pad(products, (0, missing), value=-torch.inf) if missing else products
    stretches = padded.view(len(products), -1, _STRETCH)
    hits, stretch = (stretches.amax(dim=2) >= least[:, None]).nonzero(as_tuple=True)
    some, column = (stretches[hits, stretch] >= least[hits, None]).nonzero(as_tuple=True)
    passages = stretch[some] * _STRETCH + column
    real = passages < products.shape[1]  # where `least` is -inf the padding is not below it
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
