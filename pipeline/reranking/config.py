"""One YAML file is one whole job. Each part's config stands beside what it configures."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    PositiveInt,
    model_validator,
)

from pipeline.config_file import flatten, load
from pipeline.levels import FuseConfig, check_levels
from pipeline.placement import JobActors
from pipeline.reranking.cascade import Level, LevelConfig
from pipeline.run_date import Dated, RunDate
from pipeline.scoring.config import ScorerConfig
from pipeline.tables.config import InputConfig
from pipeline.tables.format import candidate_format
from pipeline.tables.output.config import OutputConfig
from pipeline.tables.schema import FIRST_STAGE_SCORE

_COMPARED_BY_CONTENT = {
    "input.path",
    "input.version",
    "input.queries",
    "input.passages",
    "output.path",
    "output.training_rows.qrels",
    "scorer.model",
    "scorer.revision",
    "scorer.local_files_only",
    "scorer.peft_path",
    "scorer.peft_revision",
    "scorer.quantization.path",
    "scorer.quantization.fingerprint",
}
"""Where things lie: the files and weights found there are compared themselves."""

_PLACES = {*_COMPARED_BY_CONTENT, "qrels", "reuse"}
"""Fields that say where things lie."""

_LATER_FIELDS = {"input.top_k", "output.training_rows", "scorer.quantization", "fuse.first_stage"}
"""What earlier records lack, where it is null."""

_NOT_COMPARED: dict[str, Any] = {
    "actors": True,
    "executor": True,
    "max_outage_s": True,
    "qrels": True,
    "run_date": True,
    "input": {"success_file", "limits"},
}
_LEVEL = re.compile(r"^levels\.\d+\.")


class RerankConfig(Dated):
    """A whole offline job."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    input: InputConfig
    output: OutputConfig
    scorer: ScorerConfig | None = None
    """What scores every candidate: this, or `levels`."""
    levels: tuple[LevelConfig, ...] | None = Field(default=None, min_length=1, strict=False)
    """Scorers one after another, each for the best candidates of the one before: a cascade."""
    fuse: FuseConfig | None = None
    """Of `scorer`: rank by a mix of its scores and the first stage's (`first_stage: 1`). A level has a `fuse`
    of its own."""
    actors: JobActors = JobActors()
    shard_pairs: PositiveInt = 20_000
    """Pairs a shard: the unit that is lost and done again when something dies."""
    executor: Literal["ray_data", "here"] = "ray_data"
    """Where shards are worked: on a Ray cluster (started here where there is none), or in this process, one
    after another with `actors.num_cpus` threads, which starts at once. Both write the same bytes."""
    reuse: str | None = Field(default=None, min_length=1)
    """The output directory of a finished run, whose scores are taken for pairs that it scored alike. With
    {previous_run_date} in it: the latest run there of a date before `run_date` that is finished and has this
    job's scorer; where there is none, every pair is scored."""
    qrels: str | None = Field(default=None, min_length=1)
    """Judgments, a qrels file of TREC's form or BEIR's: summary and report then tell nDCG@10, RR@10, AP and
    R@10 of the run beside those of the input's order. No part of the job: a finished one that is started
    again with other judgments is measured by them, and not scored again."""
    max_outage_s: float = Field(default=300, ge=0, le=1200)
    """How long a store that does not answer is waited for, by each request. Ray Data ends a job that gets
    nowhere for 30 minutes."""
    run_date: RunDate = None
    """What {run_date} stands for in every field that says where things lie; never taken from the clock."""

    @classmethod
    def is_place(cls, name: str) -> bool:
        return _is_place(name)

    @model_validator(mode="after")
    def _has_one_way_to_score(self) -> Self:
        if (self.scorer is None) == (self.levels is None):
            given = "give one of them" if self.scorer is None else "a cascade has its scorers in its levels"
            raise ValueError(f"scorer (one for all candidates) or levels (a cascade): {given}")
        return self

    @model_validator(mode="after")
    def _levels_lead_on(self) -> Self:
        check_levels(self.levels or ())
        if self.fuse is None:
            return self
        if self.levels is not None:
            raise ValueError("fuse goes with scorer; in a cascade a level has it (levels.N.fuse)")
        if self.fuse.first_stage is None:
            raise ValueError("fuse: one scorer can be mixed with the first stage alone: set first_stage: 1")
        if len(self.fuse.weights or ()) > 1:
            raise ValueError("fuse.weights: needs 1 number, the scorer's; first_stage is the first stage's")
        return self

    @model_validator(mode="after")
    def _names_each_column_once(self) -> Self:
        for level in self.cascade:
            layers = level.scorer.cutoff_layers or ()
            if len(set(layers)) < len(layers):
                raise ValueError(
                    f"{level.under}scorer.cutoff_layers {list(layers)}: a run has a column a layer; name each"
                    " once"
                )
        taken = sorted(set(self.run_columns) & self.kept.keys())
        if taken:
            raise ValueError(
                f"output.keep_columns: the run has a {taken[0]} of its own; keep yours under another name"
            )
        return self

    @model_validator(mode="after")
    def _devices_fit_the_actors(self) -> Self:
        for number, level in enumerate(self.levels or ()):
            field = "actors" if level.actors is None else f"levels.{number}.actors"
            (level.actors or self.actors).check_device(level.scorer.device, field, f"levels.{number}.scorer")
        if self.scorer is not None:
            self.actors.check_device(self.scorer.device, "actors")
        return self

    @property
    def cascade(self) -> tuple[Level, ...]:
        """The levels, each scorer on the device that its actors hold; `scorer` alone is one level."""
        if self.scorer is not None:
            return (Level(0, "", self.actors.place(self.scorer), self.actors, None, None, self.fuse),)
        levels, sees = [], None
        for number, level in enumerate(self.levels or ()):
            actors = level.actors or self.actors
            scorer = actors.place(level.scorer)
            levels.append(Level(number, f"levels.{number}.", scorer, actors, sees, level.keep, level.fuse))
            sees = level.keep
        return tuple(levels)

    @property
    def run_columns(self) -> list[str]:
        """The run's columns beside those that every run has and the kept ones."""
        return [name for level in self.cascade for name in level.run_columns]

    @property
    def first_stage_score(self) -> str | None:
        """The kept column of the first stage's scores, where they are in a mix."""
        return FIRST_STAGE_SCORE if any(level.mixes_first_stage for level in self.cascade) else None

    @property
    def kept(self) -> dict[str, str]:
        """The input's columns that the run has: the name in the run, the input's."""
        kept = self.output.keep_columns
        if self.first_stage_score is None or self.first_stage_score in kept:
            return kept
        return kept | {self.first_stage_score: candidate_format(self.input.format).TRAITS.first_stage_score}

    @property
    def depth(self) -> int | None:
        """How many candidates of each query stay in the run; None: all."""
        levels = self.levels or ()
        cuts = [level.keep for level in levels if level.drop] + [level.keep for level in levels[-1:]]
        return min((cut for cut in (self.output.top_k, *cuts) if cut is not None), default=None)

    def with_scorers(self, scorers: Sequence[ScorerConfig]) -> Self:
        """The same job with other scorers, one a level."""
        if self.levels is None:
            return self.model_copy(update={"scorer": scorers[0]})
        pairs = zip(self.levels, scorers, strict=True)
        levels = [level.model_copy(update={"scorer": scorer}) for level, scorer in pairs]
        return self.model_copy(update={"levels": tuple(levels)})

    def determining_fields(self) -> dict[str, Any]:
        """Dotted field to value, of the fields that decide what the output holds."""
        tree = self.model_dump(mode="json", exclude=_NOT_COMPARED)
        levels = {str(number): level for number, level in enumerate(tree.pop("levels") or ())}
        for level in levels.values():
            del level["actors"]
        # Of scorer and levels the one that is not given is no field; nor is a fuse that earlier records lack.
        tree = {
            name: value for name, value in tree.items() if name not in ("scorer", "fuse") or value is not None
        }
        fields = flatten(tree) | flatten(levels, "levels.")
        # A run's columns have an order, a mapping compares without one.
        fields["output.keep_columns"] = [list(pair) for pair in self.kept.items()]
        fields |= {f"{level.under}scorer.device": level.scorer.device for level in self.cascade}
        return {
            name: value
            for name, value in fields.items()
            if not _is_compared_by_content(name)
            and not name.startswith("output.keep_columns.")
            # As records of before these fields have it.
            and (value is not None or _LEVEL.sub("", name) not in _LATER_FIELDS)
        }

    @property
    def fingerprint(self) -> str:
        """Of `determining_fields`."""
        return hashlib.sha256(json.dumps(self.determining_fields(), sort_keys=True).encode()).hexdigest()[:16]


def load_config(path: Path, overrides: list[str]) -> RerankConfig:
    """The job of a YAML file, with `a.b=c` overrides. Raises ConfigError."""
    return load(RerankConfig, path, overrides)


def _is_compared_by_content(name: str) -> bool:
    return _LEVEL.sub("", name) in _COMPARED_BY_CONTENT


def _is_place(name: str) -> bool:
    return _LEVEL.sub("", name) in _PLACES
