"""Exact search by embeddings: blocks of queries against shards of passages, on the device that actors hold.

One matrix product tells which passages can be among a query's best, with room for what float32 rounds; the
scores of those are then summed in float64. So equal vectors have equal scores, and no score depends on how
passages were parted or on the product's kernel.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from pipeline.retrieval.embeddings import Vectors, directory_of, read_vectors
from pipeline.retrieval.plan import Job, Kind
from pipeline.retrieval.search import Best
from pipeline.retrieval.shards import Shard, read_shard

_CHUNK_VECTORS = 16_384
"""Vectors that are compared with all queries of a block at once."""
_EXACT_ROWS = 65_536
_ROUNDING = 1e-5
"""Of the product of two lengths: more than float32 is off in a sum of some thousand terms."""
_MANY = 8
"""Times k hits a query that are worth their exact scores: above, the k best are told first."""

IntArray = npt.NDArray[np.int64]


def search(job: Job, source: str, block: str, shards: list[str]) -> pa.Table:
    """The best of some shards for a shard of queries: `Best.table`."""
    cosine = source in job.by_cosine
    device = torch.device("cuda" if job.config.actors.num_gpus else "cpu")
    queries = _matrix(_vectors(job, source, "queries", block), cosine, device)
    best = Best(len(queries), job.depth(source), job.id_type("passages"))
    for name in shards:
        vectors = _vectors(job, source, "passages", name)
        ids = read_shard(job.output, "passages", Shard.named(name), ["passage_id"])[
            "passage_id"
        ].combine_chunks()
        assert len(ids) == len(vectors.first), name
        for start in range(0, len(vectors.first), _CHUNK_VECTORS):
            part = _part(vectors, start, start + _CHUNK_VECTORS)
            hits, scores, rows = best_of(queries, part, best.floor, job.depth(source), cosine=cosine)
            best.add(Shard.named(name).number, hits, scores, ids.take(pa.array(rows + start)), rows + start)
    return best.table()


def best_of(
    queries: torch.Tensor, part: Vectors, floor: npt.NDArray[np.float32], k: int, *, cosine: bool
) -> tuple[IntArray, npt.NDArray[np.float32], IntArray]:
    """(queries, scores, passages): each query's best k of the part at least, but those below its floor.

    queries: (queries, width), normalized where similarity is the cosine.
    """
    vectors = _matrix(part, cosine, queries.device)
    counts = part.counts
    of_vector = np.repeat(np.arange(len(counts)), counts)
    products = queries @ vectors.T
    if len(counts) < len(vectors):
        products = _maxima(products, torch.from_numpy(of_vector).to(queries.device), len(counts))
    rounding = _ROUNDING * queries.norm(dim=1) * vectors.norm(dim=1).max()
    least = torch.from_numpy(floor).to(queries.device) - rounding
    found = products >= least[:, None]
    if int(found.sum()) > _MANY * k * len(queries) and len(counts) > k:
        kth = products.topk(k, dim=1, sorted=False).values.amin(dim=1)
        found = products >= torch.maximum(least, kth - rounding)[:, None]
    hits, passages = found.nonzero(as_tuple=True)
    scores = _exact(queries, vectors, hits, passages, part)
    return hits.cpu().numpy(), scores, passages.cpu().numpy()


def _exact(
    queries: torch.Tensor, vectors: torch.Tensor, hits: torch.Tensor, passages: torch.Tensor, part: Vectors
) -> npt.NDArray[np.float32]:
    """Each hit's score, of the passage's best window."""
    first, counts = (torch.from_numpy(array).to(hits.device) for array in (part.first, part.counts))
    windows = counts[passages]
    of_hit = torch.repeat_interleave(torch.arange(len(hits), device=hits.device), windows)
    begins = torch.repeat_interleave(windows.cumsum(0) - windows, windows)
    at = first[passages][of_hit] + torch.arange(len(of_hit), device=hits.device) - begins
    scores = torch.full((len(hits),), -torch.inf, dtype=torch.float64, device=hits.device)
    for start in range(0, len(of_hit), _EXACT_ROWS):
        some = slice(start, start + _EXACT_ROWS)
        sums = torch.einsum("ij,ij->i", queries[hits[of_hit[some]]].double(), vectors[at[some]].double())
        scores.scatter_reduce_(0, of_hit[some], sums, "amax")
    return scores.float().cpu().numpy()


def _maxima(products: torch.Tensor, of_vector: torch.Tensor, passages: int) -> torch.Tensor:
    """(queries, vectors) to (queries, passages): of each passage its best window's."""
    maxima = torch.full((len(products), passages), -torch.inf, device=products.device)
    return maxima.scatter_reduce_(1, of_vector.expand(len(products), -1), products, "amax")


def _matrix(vectors: Vectors, cosine: bool, device: torch.device) -> torch.Tensor:
    matrix = torch.from_numpy(vectors.values.astype(np.float32)).to(device)
    return torch.nn.functional.normalize(matrix, dim=1) if cosine else matrix


def _part(vectors: Vectors, start: int, stop: int) -> Vectors:
    """Some of the texts."""
    first = vectors.first[start:stop]
    end = vectors.first[stop] if stop < len(vectors.first) else len(vectors.values)
    return Vectors(vectors.values[first[0] : end], first - first[0], vectors.hashes[first[0] : end])


def _vectors(job: Job, source: str, kind: Kind, shard: str) -> Vectors:
    return read_vectors(f"{job.output.url}/{directory_of(source, kind)}/{shard}.parquet")
