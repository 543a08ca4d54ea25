"""A model is tried before it scores for anyone: what is wrong with it is no pair's fault."""

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.errors import ModelError, ScoringError
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.family import Model

_SAME_SCORE, _SAME_SCORE_IN_HALF = 0.001, 0.5
"""How far rounding moves a score from one batch to another, at most."""
_PAIRS = [("a", "b"), ("what is it?", "it is this, and that as well")]


def try_model(
    model: Model,
    encode: Callable[[Sequence[tuple[str, str]]], EncodedPairs],
    checkpoint: Checkpoint,
    config: ScorerConfig,
) -> None:
    """Score two pairs of different lengths, together and alone.

    What fails for both is the model's fault, not theirs; and a model that lets padding change a score gives
    none that can be ranked. Raises ModelError for either.
    """
    try:
        batches = [encode(some) for some in (_PAIRS, _PAIRS[:1], _PAIRS[1:])]
    except ScoringError:
        return  # limits are so tight that even these don't fit
    try:
        together, *alone = (model.forward(one.sequences, one.inputs).scores for one in batches)
    except ScoringError as error:
        reason = " ".join(error.reason.split())[:300]
        raise ModelError(f"{checkpoint.name}: scores no pair: {reason}") from error
    if not np.isfinite(together).any():
        raise ModelError(
            f"{checkpoint.name}: its scores are {together.flat[0]}; are its weights whole, and is"
            f" dtype {config.dtype} wide enough for them?"
        )
    exact = config.dtype == "float32" and config.quantization is None
    tolerance = _SAME_SCORE if exact else _SAME_SCORE_IN_HALF
    if not np.allclose(together, np.concatenate(alone), rtol=tolerance, atol=tolerance, equal_nan=True):
        raise ModelError(
            f"{checkpoint.name}: the score of a pair depends on the batch that it is in;"
            f" {checkpoint.architecture} is not run here"
        )
