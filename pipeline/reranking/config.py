"""One YAML file is one whole job. Each part's config stands beside what it configures."""

import hashlib
import json
import re
from datetime import date
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)

from pipeline.config_file import flatten, load
from pipeline.placement import ActorsConfig
from pipeline.scoring.config import ScorerConfig
from pipeline.tables.config import InputConfig
from pipeline.tables.output.config import OutputConfig
from pipeline.tables.schema import score_columns

_COMPARED_BY_CONTENT = {
    "input.path",
    "input.version",
    "input.queries",
    "input.passages",
    "output.path",
    "scorer.model",
    "scorer.revision",
    "scorer.local_files_only",
    "scorer.peft_path",
    "scorer.peft_revision",
}
"""Where things lie: the files and weights found there are compared themselves."""

_NOT_COMPARED: dict[str, Any] = {
    "actors": True,
    "executor": True,
    "max_outage_s": True,
    "run_date": True,
    "input": {"limits"},
}
_DATE = "{run_date}"
_PLACEHOLDER = re.compile(r"\{\w*\}")


class RerankConfig(BaseModel):
    """A whole offline job."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    input: InputConfig
    output: OutputConfig
    scorer: ScorerConfig
    actors: ActorsConfig = ActorsConfig()
    shard_pairs: PositiveInt = 20_000
    """Pairs a shard: the unit that is lost and done again when something dies."""
    executor: Literal["ray_data", "here"] = "ray_data"
    """Where shards are worked: on a Ray cluster (started here where there is none), or in this process, one
    after another with `actors.num_cpus` threads, which starts at once. Both write the same bytes."""
    reuse: str | None = Field(default=None, min_length=1)
    """The output directory of a finished run, whose scores are taken for pairs that it scored alike."""
    max_outage_s: float = Field(default=300, ge=0, le=1200)
    """How long a store that does not answer is waited for, by each request. Ray Data ends a job that gets
    nowhere for 30 minutes."""
    run_date: date | None = None
    """What {run_date} stands for in every field that says where things lie; never taken from the clock."""

    @model_validator(mode="before")
    @classmethod
    def _date_the_places(cls, tree: Any) -> Any:
        date_given = tree.get("run_date") if isinstance(tree, dict) else None
        if date_given is None:
            return tree
        # In a job that was read back the date stands there already.
        if not any(_DATE in place or str(date_given) in place for place in _places(tree).values()):
            raise ValueError(f"run_date: no path uses it; write {_DATE} in output.path, or leave it out")
        return _fill_in(tree, str(date_given))

    @field_validator("run_date", mode="before")
    @classmethod
    def _is_a_date(cls, value: Any) -> Any:
        """YAML reads 2026-11-20 as a date; quoted, and in JSON, it is a text."""
        if value is None or type(value) is date:
            return value
        if not (isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value)):
            raise ValueError("needs a date such as 2026-11-20")
        return date.fromisoformat(value)

    @model_validator(mode="after")
    def _places_are_filled_in(self) -> Self:
        for name, place in _places(self.model_dump()).items():
            for placeholder in _PLACEHOLDER.findall(place):
                if placeholder == _DATE:
                    raise ValueError(f"{name} {place} needs the date: --set run_date=2026-11-20")
                raise ValueError(f"{name} {place}: there is no {placeholder}; {_DATE} is the one placeholder")
        return self

    @model_validator(mode="after")
    def _names_each_column_once(self) -> Self:
        layers = self.scorer.cutoff_layers or ()
        if len(set(layers)) < len(layers):
            raise ValueError(
                f"scorer.cutoff_layers {list(layers)}: a run has a column a layer; name each once"
            )
        taken = sorted(set(self.score_columns) & self.output.keep_columns.keys())
        if taken:
            raise ValueError(
                f"output.keep_columns: the run has a {taken[0]} of its own; keep yours under another name"
            )
        return self

    @model_validator(mode="after")
    def _device_fits_the_actors(self) -> Self:
        self.actors.check_device(self.scorer.device, "actors")
        return self

    @property
    def score_columns(self) -> list[str]:
        """The run's columns of scores beside `score`."""
        return score_columns(self.scorer.cutoff_layers or (), normalized=self.scorer.normalize)

    @property
    def placed_scorer(self) -> ScorerConfig:
        """The scorer on the device that its actors hold."""
        return self.actors.place(self.scorer)

    def determining_fields(self) -> dict[str, Any]:
        """Dotted field to value, of the fields that decide what the output holds."""
        fields = flatten(self.model_dump(mode="json", exclude=_NOT_COMPARED))
        # A run's columns have an order, a mapping compares without one.
        kept = {"output.keep_columns": [list(pair) for pair in self.output.keep_columns.items()]}
        return {
            name: value
            for name, value in (fields | kept | {"scorer.device": self.placed_scorer.device}).items()
            if name not in _COMPARED_BY_CONTENT and not name.startswith("output.keep_columns.")
        }

    @property
    def fingerprint(self) -> str:
        """Of `determining_fields`."""
        return hashlib.sha256(json.dumps(self.determining_fields(), sort_keys=True).encode()).hexdigest()[:16]


def load_config(path: Path, overrides: list[str]) -> RerankConfig:
    """The job of a YAML file, with `a.b=c` overrides. Raises ConfigError."""
    return load(RerankConfig, path, overrides)


def _places(tree: dict[str, Any]) -> dict[str, str]:
    """Dotted field to text, of the fields that say where things lie."""
    return {
        name: value
        for name, value in flatten(tree).items()
        if name in _COMPARED_BY_CONTENT and isinstance(value, str)
    }


def _fill_in(tree: dict[str, Any], run_date: str, prefix: str = "") -> dict[str, Any]:
    """The tree with the date in its places."""
    filled = dict(tree)
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            filled[key] = _fill_in(value, run_date, f"{name}.")
        elif name in _COMPARED_BY_CONTENT and isinstance(value, str):
            filled[key] = value.replace(_DATE, run_date)
    return filled
