"""Long lists on a GPU: a part's pairs are tokenized while the card computes the part before."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from pipeline.errors import ScoringError
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.results import Scored

PART_PAIRS = 1024
"""Enough for some full batches, few enough that the card soon has the first."""


def score_in_parts(
    pairs: list[tuple[str, str]],
    encode: Callable[[list[tuple[str, str]]], EncodedPairs],
    forward: Callable[[EncodedPairs], Scored],
    size: int = PART_PAIRS,
) -> npt.NDArray[np.float32]:
    """The scores that `forward` gives, (pairs,) or (pairs, cutoffs), in order; equal pairs go through once.

    Raises ScoringError, with the pair's position, as `encode` and `forward` do for a part.
    """
    places: dict[tuple[str, str], int] = {}
    place_of = [places.setdefault((query, passage), len(places)) for query, passage in pairs]
    once = list(places)
    scores = list[npt.NDArray[np.float32]]()
    with ThreadPoolExecutor(1, "encoding") as thread:
        encoded = thread.submit(encode, once[:size])
        for first in range(0, len(once), size):
            try:
                part = encoded.result()
                encoded = thread.submit(encode, once[first + size : first + 2 * size])
                scores.append(forward(part).scores)
            except ScoringError as error:
                raise ScoringError(place_of.index(first + error.index), error.reason) from error
    return np.concatenate(scores)[place_of]
