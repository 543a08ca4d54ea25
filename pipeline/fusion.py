"""Pure: what a list of candidates adds to their fused scores, where several lists become one.

The lists are of several first stages (`retrieve`), or of several levels of a cascade (`rerank`).
"""

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

FloatArray = npt.NDArray[np.float64]
Method = Literal["rrf", "weighted"]
"""rrf: reciprocal ranks, 1 / (k + rank). weighted: scores, each query's put between 0 (its last) and 1 (its
first). Both are times the list's weight, and a candidate's fused score is their sum over the lists."""


RrfK = Annotated[int, Field(ge=1, le=1_000_000)]
"""Of rrf: how little the first ranks stand out. Beyond, float32 does not tell ranks apart."""


def _counts(weight: float) -> float:
    if weight and not 1e-6 <= abs(weight) <= 1e6:
        raise ValueError("needs 0, or a size from 0.000001 to 1000000: scores are float32")
    return weight


Weight = Annotated[float, AfterValidator(_counts)]
"""Of a list."""


def reciprocal_ranks(ranks: npt.NDArray[np.integer], k: int) -> FloatArray:
    """ranks: 1-based, within the query. k: how little the first ranks stand out."""
    reciprocal: FloatArray = 1.0 / (float(k) + ranks.astype(np.float64))
    return reciprocal


def spread_scores(queries: npt.NDArray[np.integer], scores: npt.NDArray[np.floating]) -> FloatArray:
    """The scores, each query's put between 0 and 1. queries: the number of each score's query."""
    if not len(scores):
        return np.zeros(0)
    scores = scores.astype(np.float64)
    places = np.unique(queries, return_inverse=True)[1]
    highest, lowest = np.full(places.max() + 1, -np.inf), np.full(places.max() + 1, np.inf)
    np.maximum.at(highest, places, scores)
    np.minimum.at(lowest, places, scores)
    spread = (highest - lowest)[places]
    # A list of equal scores, or of one: all of them are its first.
    scores[spread == 0], lowest[places[spread == 0]], spread[spread == 0] = 1.0, 0.0, 1.0
    between: FloatArray = (scores - lowest[places]) / spread
    return between
