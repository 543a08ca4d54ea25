"""Hidden states to an embedding, and two embeddings to a score, as in sentence_transformers 6.2
(sentence_transformer/modules/pooling.py, util/similarity.py).
"""

from collections.abc import Callable
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from pipeline.scoring.json_object import JsonObject

Pooling = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Embeddings = npt.NDArray[np.float32]

# hidden: (batch, length, width); mask: (batch, length, 1), 1.0 where a token is real, padding on the right.


def _cls(hidden: torch.Tensor, _mask: torch.Tensor) -> torch.Tensor:
    return hidden[:, 0]


def _max(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return hidden.masked_fill(mask == 0, -torch.inf).amax(dim=1)


def mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)


def _mean_sqrt(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9).sqrt()


def _weighted_mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask * torch.arange(1, hidden.shape[1] + 1, device=hidden.device)[:, None]
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


def last_token(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    last = mask.sum(dim=1).long().clamp(min=1) - 1
    return hidden[torch.arange(len(hidden), device=hidden.device), last[:, 0]]


# In the order in which sentence-transformers concatenates them; the second name is that of older files.
POOLINGS: dict[str, tuple[str, Pooling]] = {
    "cls": ("pooling_mode_cls_token", _cls),
    "max": ("pooling_mode_max_tokens", _max),
    "mean": ("pooling_mode_mean_tokens", mean),
    "mean_sqrt_len_tokens": ("pooling_mode_mean_sqrt_len_tokens", _mean_sqrt),
    "weightedmean": ("pooling_mode_weightedmean_tokens", _weighted_mean),
    "lasttoken": ("pooling_mode_lasttoken", last_token),
}


def poolings_of(settings: JsonObject) -> list[Pooling]:
    """Those that config.json of a Pooling module names, in the order in which they are concatenated.

    Raises ModelError for one that is not known, and for a prompt that is left out of the pooling.
    """
    if settings.flag("include_prompt") is False:
        raise settings.wrong("include_prompt", "is false; no prompt is left out of a pooling here")
    named = settings.fields.get("pooling_mode")
    if named is None:
        names = [name for name, (key, _) in POOLINGS.items() if settings.flag(key)] or ["mean"]
    else:
        names = [named] if isinstance(named, str) else settings.texts("pooling_mode")
    unknown = sorted(set(names) - POOLINGS.keys())
    if unknown or not names:
        raise settings.wrong(
            "pooling_mode", f"unknown pooling {unknown[:1]!r}; known are {', '.join(POOLINGS)}"
        )
    return [POOLINGS[name][1] for name in names]


# embeddings: (pairs, width) each, to (pairs,).


def _dot(queries: Embeddings, passages: Embeddings) -> Embeddings:
    return cast("Embeddings", np.einsum("ij,ij->i", queries, passages))


def _cosine(queries: Embeddings, passages: Embeddings) -> Embeddings:
    return _dot(_normalized(queries), _normalized(passages))


def _euclidean(queries: Embeddings, passages: Embeddings) -> Embeddings:
    return cast("Embeddings", -np.linalg.norm(queries - passages, axis=1))


def _manhattan(queries: Embeddings, passages: Embeddings) -> Embeddings:
    return cast("Embeddings", -np.abs(queries - passages).sum(axis=1))


def _normalized(embeddings: Embeddings) -> Embeddings:
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return cast("Embeddings", embeddings / np.maximum(lengths, 1e-12))


SIMILARITIES = {"cosine": _cosine, "dot": _dot, "euclidean": _euclidean, "manhattan": _manhattan}
"""By the names that sentence-transformers gives them; distances are negative, so that higher is better."""
