"""What a scorer gives: of pairs, of texts, of a list of passages."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

Heard = Callable[[float], None]
"""Called now and then with the share of the tokens that have gone through the model."""


@dataclass(frozen=True)
class RankedPassage:
    """One passage of `Scorer.rank`."""

    rank: int
    """1-based, by the raw score."""
    score: float
    """As the config shows it: with `normalize` a sigmoid, which can be equal where the raw score is not."""
    index: int
    """Position among the passages handed in."""
    passage: str
    """Its text."""
    query_cut: int
    """Tokens of the query that the model did not see."""
    passage_cut: int
    """Tokens of the passage that it did not see."""
    window: int
    """Which window of the passage scored best; 0 where it has one window."""


class Scored(NamedTuple):
    """What became of encoded pairs. `pairs` below is their number, in their order."""

    scores: npt.NDArray[np.float32]
    """Raw: what passages are ranked by, whatever `normalize` says. All finite; (pairs,), or (pairs, cutoffs)
    where several cutoff layers are asked for."""
    windows: npt.NDArray[np.int32]
    """The number of the passage's best window, 0 for the first; of the same shape."""
    tokens: int
    """Real tokens that went through the backbone."""
    padded_tokens: int
    """The same with padding."""
    copies: int = 0
    """Pairs of which nothing went through the model, since an equal pair of the call did."""


class Embedded(NamedTuple):
    """What became of texts, in their order."""

    embeddings: npt.NDArray[np.float32]
    """(windows, width), all finite, the windows of a text together."""
    windows: npt.NDArray[np.int32]
    """(texts,): how many each text has, 1 or more."""
    cuts: npt.NDArray[np.int32]
    """(texts,): tokens of each text that no window reads."""
    tokens: int
    """Real tokens that went through the backbone."""


def sigmoid(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """In float64, as the reference does: near 1 float32 has too few steps left for the exponential."""
    result: npt.NDArray[np.float32] = torch.from_numpy(scores).double().sigmoid().float().numpy()
    return result
