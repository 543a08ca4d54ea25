"""Scorers one after another: each is a level, which scores the best candidates of the level before.

Pure, on the candidates of one shard. What is known of them is a table, `results`, with a row a candidate:
`rank`, their order so far (before any level the first stage's), and each level's columns, null where it did
not see the candidate. A job with one scorer is a cascade of one level, whose columns have no prefix.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator

from pipeline.errors import RayrankError, fields_under
from pipeline.levels import FuseConfig, fuse
from pipeline.placement import JobActors
from pipeline.ranking import ranks
from pipeline.scoring.config import ScorerConfig
from pipeline.tables.input.numeric_columns import as_scores
from pipeline.tables.schema import (
    FIRST_STAGE_SCORE,
    FUSED,
    OF_THE_SCORER,
    RAW_SCORE,
    level_prefix,
    result_schema,
    score_columns,
)

_OF_THE_LAST = ("query_cut", "passage_cut", "window")


class LevelConfig(BaseModel):
    """One scorer of a cascade."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    scorer: ScorerConfig
    keep: PositiveInt | None = None
    """How many candidates of each query go on to the next level, the best ones; at the last level, how many
    stay in the run (null: all). A query that has fewer keeps them all."""
    drop: bool = False
    """Leave what this level cuts out of the run. Else it keeps its order, below what went on."""
    fuse: FuseConfig | None = None
    """Rank by a mix of this level's scores with those of the levels before, or of the first stage. Null: by
    this level's alone."""
    actors: JobActors | None = None
    """Null: as the job's `actors`. Each level has a pool of its own."""

    @model_validator(mode="after")
    def _drops_what_it_cuts(self) -> Self:
        if self.drop and self.keep is None:
            raise ValueError("drop leaves out what keep cuts: say how many to keep")
        return self


@dataclass(frozen=True)
class Level:
    """A level as the work needs it: on its device, with its actors, by its names."""

    number: int
    """From 0, as in the config."""
    under: str
    """Where its fields stand in the config: `levels.0.`; empty for a job with one scorer."""
    scorer: ScorerConfig
    actors: JobActors
    sees: int | None
    """How many candidates of each query come to it; None: all."""
    keep: int | None
    fuse: FuseConfig | None

    @property
    def name(self) -> str:
        """As the config has it: `levels.0`, or `scorer`."""
        return self.under.rstrip(".") or "scorer"

    @property
    def fused_names(self) -> list[str]:
        """Of the levels that `fuse` mixes, from the first to this one."""
        return [f"levels.{number}" for number in range(self.number + 1)] if self.under else ["scorer"]

    @property
    def mixes_first_stage(self) -> bool:
        return self.fuse is not None and self.fuse.first_stage is not None

    @property
    def prefix(self) -> str:
        """Of its columns."""
        return level_prefix(self.number) if self.under else ""

    @property
    def more_scores(self) -> list[str]:
        """What it gives of a pair beside `score`: `result_schema`'s, without the prefix."""
        return score_columns(self.scorer.cutoff_layers or (), normalized=self.scorer.normalize)

    @property
    def score_table_columns(self) -> list[str]:
        return [f"{self.prefix}{name}" for name in result_schema(self.more_scores).names]

    @property
    def run_columns(self) -> list[str]:
        """Of the run, beside those that every run has."""
        if not self.under:
            own = [f"{OF_THE_SCORER}{name}" for name in ("score", *self.more_scores)]
            return own if self.fuse else self.more_scores
        own = ["score", *self.more_scores, *([FUSED] if self.fuse else []), "rank"]
        return [f"{self.prefix}{name}" for name in own]

    @property
    def raw_score(self) -> str:
        """The column by which it ranks, but for `fuse`."""
        return f"{self.prefix}{RAW_SCORE if self.scorer.normalize else 'score'}"

    @property
    def ranks_by(self) -> str:
        """The column by which it ranks."""
        return f"{self.prefix}{FUSED}" if self.fuse else self.raw_score


@contextmanager
def named(level: Level) -> Iterator[None]:
    """An error of a level's scorer tells the field of the config."""
    try:
        with fields_under(f"{level.under}scorer"):
            yield
    except RayrankError as error:
        if error.field is None:
            error.message = f"{level.under}scorer: {error.message}"
        raise


def seen(results: pa.Table, most: int | None) -> pa.Array:
    """Which candidates go on where a level keeps the best `most` of each query, as Booleans."""
    order = results["rank"].combine_chunks()
    return pc.is_valid(order) if most is None else pc.less_equal(order, most)


def ranked_by(level: Level, levels: Sequence[Level], candidates: pa.Table, results: pa.Table) -> pa.Table:
    """`results` with the ranks that a level gives, of whose scores `add_level` has told.

    The order of what it saw is its own, above what it did not see, which stands as it stood.
    """
    saw = seen(results, level.sees)
    theirs = candidates.filter(saw)
    scores = [results[each.raw_score].filter(saw).combine_chunks() for each in levels[: level.number + 1]]
    score = scores[-1]
    if level.fuse is not None:
        first_stage = _first_stage_scores(theirs) if level.mixes_first_stage else None
        score = fuse(scores, theirs, level.fuse, first_stage)
        results = results.append_column(f"{level.prefix}{FUSED}", _spread(score, saw))
    own = _spread(ranks(theirs["query_id"], theirs["passage_id"], score), saw)
    if level.under:
        results = results.append_column(f"{level.prefix}rank", own)
    order = pc.coalesce(own, results["rank"].combine_chunks())
    return results.set_column(results.column_names.index("rank"), "rank", order)


def add_level(level: Level, results: pa.Table, own: pa.Table) -> pa.Table:
    """`results` with what a level gave: a `result_schema` row for each candidate that it saw, in order."""
    saw = seen(results, level.sees)
    for name in own.column_names:
        results = results.append_column(f"{level.prefix}{name}", _spread(own[name].combine_chunks(), saw))
    return results


def with_run_columns(levels: Sequence[Level], results: pa.Table) -> pa.Table:
    """`results` with the columns of a run that are of no level alone.

    `score` is 1 / rank: scores of several models have no order, and readers of runs order by this column.
    What was cut, and which window won, are of the last level that saw the candidate.
    """
    if not levels[0].under:
        return _with_fused_score(levels[0], results) if levels[0].fuse else results
    score = pc.divide(pa.scalar(1.0), results["rank"].cast(pa.float64())).cast(pa.float32())
    results = results.append_column("score", score)
    for name in _OF_THE_LAST:
        columns = [results[f"{level.prefix}{name}"] for level in reversed(levels)]
        results = results.append_column(name, pc.coalesce(*columns))
    return results


def _with_fused_score(level: Level, results: pa.Table) -> pa.Table:
    """With the fused score as `score`, since readers of runs order by it; the scorer's own stay beside it."""
    own = {"score", *level.more_scores}
    names = [f"{OF_THE_SCORER}{name}" if name in own else name for name in results.column_names]
    return results.rename_columns(names).append_column("score", results[FUSED])


def _first_stage_scores(candidates: pa.Table) -> pa.Array:
    """Today's, of the table: none comes from a previous run."""
    return as_scores(pc.struct_field(candidates["kept"].combine_chunks(), FIRST_STAGE_SCORE))


def _spread(values: pa.Array, saw: pa.Array) -> pa.Array:
    """The values at the places of those that a level saw; null at the others."""
    taken = saw.to_numpy(zero_copy_only=False)
    return values.take(pa.array(np.cumsum(taken) - 1, mask=~taken))
