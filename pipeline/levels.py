"""Scorers one after another, offline and online: what their configs must be, and how a level fuses.

A level scores the best candidates of the level before. The first stage, which found them, may be in the mix.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from pipeline.fusion import Method, RrfK, Weight, reciprocal_ranks, spread_scores
from pipeline.ranking import query_numbers, ranks


class FuseConfig(BaseModel):
    """How the scores of several levels, and of the first stage, become one, by which a level ranks what it
    saw.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    method: Method = "rrf"
    """rrf: reciprocal ranks, the sum over the levels of weight / (k + rank). weighted: scores, each level's
    put between 0 (a query's last) and 1 (its first), the sum of weight * score. Ranks and scores are those
    among the candidates that this level saw. Of equal scores the lower passage id ranks first."""
    k: RrfK = 60
    """rrf: how little the first ranks stand out."""
    weights: tuple[Weight, ...] | None = Field(default=None, strict=False)
    """One a level, from the first to this one. Null: 1 each."""
    first_stage: Weight | None = None
    """The weight of the first stage, whose score of each candidate stands in the table, higher is better: in
    the column `first_stage_score`, as `retrieve` writes it, or the one that `output.keep_columns` keeps under
    this name (of trec: `score`). It stays in the run. Rows without a finite number there are rejected. Null:
    the first stage is not in the mix. Not of serve: a request has no such scores."""

    def told(self, names: Sequence[str]) -> str:
        """The mix, for people. names: of the levels, from the first to the one that fuses."""
        parts = list(zip(self.weights or [1.0] * len(names), names, strict=True))
        if self.first_stage is not None:
            parts.insert(0, (self.first_stage, "first stage"))
        of = f"reciprocal ranks, k {self.k}" if self.method == "rrf" else "scores, each from 0 to 1"
        return f"{' + '.join(f'{weight:g} * {name}' for weight, name in parts)} ({of})"


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
        if level.fuse is not None and number == 0 and level.fuse.first_stage is None:
            raise ValueError(
                f"{here}.fuse: there is no level before to fuse with; set it at a later one, or, in a job,"
                " give the first stage a weight (first_stage: 1)"
            )
        if level.fuse is not None and len(level.fuse.weights or ()) not in (0, number + 1):
            raise ValueError(
                f"{here}.fuse.weights: needs {number + 1} numbers, one a level from the first to this one"
            )


def fuse(
    scores: Sequence[pa.Array], candidates: pa.Table, config: FuseConfig, first_stage: pa.Array | None = None
) -> pa.Array:
    """One score (float32) a candidate.

    scores: each level's, from the first to the one that ranks; candidates: query_id and passage_id, a query's
    rows together; first_stage: its scores (float32), where the config gives it a weight.
    """
    weights = list(config.weights or [1.0] * len(scores))
    if config.first_stage is not None:
        assert first_stage is not None
        weights, scores = [config.first_stage, *weights], [first_stage, *scores]
    queries = query_numbers(candidates["query_id"])
    total = np.zeros(len(queries))
    for weight, score in zip(weights, scores, strict=True):
        if config.method == "rrf":
            places = ranks(candidates["query_id"], candidates["passage_id"], score).to_numpy()
            total += weight * reciprocal_ranks(places, config.k)
        else:
            total += weight * spread_scores(queries, score.to_numpy())
    return pa.array(total.astype(np.float32))
