"""Scorers one after another, offline and online: what their configs must be, and how a level fuses.

A level scores the best candidates of the level before.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from pipeline.fusion import Method, Weight, reciprocal_ranks, spread_scores
from pipeline.ranking import query_numbers, ranks


class FuseConfig(BaseModel):
    """How the scores of several levels become one, by which a level ranks what it saw."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    method: Method = "rrf"
    """rrf: reciprocal ranks, the sum over the levels of weight / (k + rank). weighted: scores, each level's
    put between 0 (a query's last) and 1 (its first), the sum of weight * score. Ranks and scores are those
    among the candidates that this level saw."""
    k: PositiveInt = 60
    """rrf: how little the first ranks stand out."""
    weights: tuple[Weight, ...] | None = Field(default=None, strict=False)
    """One a level, from the first to this one. Null: 1 each."""


class Step(Protocol):
    """A level's config, as far as `check_levels` looks at it."""

    @property
    def keep(self) -> int | None: ...
    @property
    def fuse(self) -> FuseConfig | None: ...


def check_levels(levels: Sequence[Step]) -> None:
    """Raises ValueError where a level cuts nothing, or speaks of levels that there are not."""
    later_fuses = [any(level.fuse for level in levels[number:]) for number in range(len(levels))]
    for number, level in enumerate(levels):
        here, is_last = f"levels.{number}", number == len(levels) - 1
        sees = levels[number - 1].keep if number else None
        if level.keep is None and not is_last:
            raise ValueError(f"{here}.keep: say how many candidates of each query go on to the next level")
        if level.keep is not None and sees is not None:
            # The last level orders what came to it, and so may any that a later one fuses.
            may_be_equal = is_last or later_fuses[number]
            if level.keep > sees or (level.keep == sees and not may_be_equal):
                raise ValueError(
                    f"{here}.keep {level.keep}: only {sees} candidates of each query come to this level"
                    f" (levels.{number - 1}.keep); keep fewer at each level"
                )
        if level.fuse is not None and number == 0:
            raise ValueError(f"{here}.fuse: there is no level before to fuse with; set it at a later one")
        if level.fuse is not None and len(level.fuse.weights or ()) not in (0, number + 1):
            raise ValueError(
                f"{here}.fuse.weights: needs {number + 1} numbers, one a level from the first to this one"
            )


def fuse(scores: Sequence[pa.Array], candidates: pa.Table, config: FuseConfig) -> pa.Array:
    """One score (float32) a candidate.

    scores: each level's, from the first to the one that ranks; candidates: query_id and passage_id, a query's
    rows together.
    """
    queries = query_numbers(candidates["query_id"])
    total = np.zeros(len(queries))
    for weight, score in zip(config.weights or [1.0] * len(scores), scores, strict=True):
        if config.method == "rrf":
            places = ranks(candidates["query_id"], candidates["passage_id"], score).to_numpy()
            total += weight * reciprocal_ranks(places, config.k)
        else:
            total += weight * spread_scores(queries, score.to_numpy())
    return pa.array(total.astype(np.float32))
