"""Products of queries and vectors, which tell what is worth an exact score, and how far off they may be.

A CPU that multiplies bfloat16 itself makes them in a quarter of the time, so there they are made in bfloat16.
How far off they may be then is computed from what each vector lost, so that no passage is missed.
"""

from typing import NamedTuple

import numpy as np
import torch

from pipeline.retrieval.vectors import Vectors
from pipeline.scoring.dtype import has_bfloat16

_WORTH_QUERIES = 32
"""With fewer of them reading the vectors takes longer than multiplying."""
_ROWS = 128
"""Vectors that a processor's cache holds with what is made of them."""
_SUMMING = 1e-5
"""Of the product of two lengths: more than float32 is off in a sum of some thousand terms."""


class Factor(NamedTuple):
    """One side of a product."""

    values: torch.Tensor
    """(vectors, width), in the dtype of the product."""
    length: torch.Tensor
    """(vectors,), before that."""
    lost: torch.Tensor
    """(vectors,): the length of what that dtype does not hold."""


def product_dtype(queries: torch.Tensor) -> torch.dtype:
    """What the products of these queries are made in. GPUs may sum in bfloat16 too: float32 there."""
    quick = queries.device.type == "cpu" and len(queries) >= _WORTH_QUERIES and has_bfloat16(queries.device)
    return torch.bfloat16 if quick else torch.float32


def factor(matrix: torch.Tensor, dtype: torch.dtype) -> Factor:
    """matrix: (vectors, width), float32."""
    if dtype == matrix.dtype:
        length = matrix.norm(dim=1)
        return Factor(matrix, length, torch.zeros_like(length))
    values = torch.empty_like(matrix, dtype=dtype)
    length, lost = torch.empty(2, len(matrix))
    room = torch.empty_like(matrix[:_ROWS])
    parts = (each.split(_ROWS) for each in (matrix, values, length, lost))
    for whole, held, its_length, its_lost in zip(*parts, strict=True):
        held.copy_(whole)
        rest = room[: len(whole)].copy_(held).sub_(whole)
        torch.linalg.vector_norm(whole, dim=1, out=its_length)
        torch.linalg.vector_norm(rest, dim=1, out=its_lost)
    return Factor(values, length, lost)


def products_off(queries: Factor, vectors: Factor) -> torch.Tensor:
    """(queries,): what no product with one of the vectors is off by more than, before `lowered` rounds it."""
    length, lost = vectors.length.max(), vectors.lost.max()
    off = queries.lost * length + (queries.length + queries.lost) * lost + _SUMMING * queries.length * length
    # Near the smallest numbers each term of a product may round to nothing.
    return off + queries.values.shape[1] * torch.finfo(queries.values.dtype).tiny


def lowered(scores: torch.Tensor, off: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Of products the least that their true values may be; of true values the least that products may be."""
    kind = torch.finfo(dtype)
    return scores - off - kind.eps * scores.abs() - kind.tiny  # below which the rest may round to nothing


def products(queries: Factor, vectors: Factor, part: Vectors, room: torch.Tensor) -> torch.Tensor:
    """(queries, passages): of each passage of `part`, whose vectors these are, its best window's.

    room: what the products are written to, since memory that is new each time costs a fifth of their time.
    """
    shape = len(queries.values), len(vectors.values)
    out = room[: shape[0] * shape[1]].view(shape)
    found = torch.matmul(queries.values, vectors.values.T, out=out)
    counts = part.counts
    if len(counts) == shape[1]:
        return found
    of_vector = torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(found.device)
    maxima = found.new_full((len(found), len(counts)), -torch.inf)
    return maxima.scatter_reduce_(1, of_vector.expand(len(found), -1), found, "amax")
