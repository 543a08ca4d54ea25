"""One YAML file is one whole job. Each part's config stands beside what it configures."""

import argparse
import hashlib
import json
import re
from datetime import date
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from pipeline.errors import ConfigError
from pipeline.scoring.config import ScorerConfig
from pipeline.tables.config import InputConfig, OutputConfig
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

_DATE = "{run_date}"
_PLACEHOLDER = re.compile(r"\{\w*\}")

_EXPECTED = {
    "tuple_type": "needs a list, such as [28]",
    "model_type": "needs a mapping, such as {field: value}",
    "too_short": "needs one value or more",
}
"""Where pydantic speaks of Python's types."""


class ActorsConfig(BaseModel):
    """The pool that scores: each actor holds one model replica."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    min: PositiveInt = 1
    max: PositiveInt = 1
    num_cpus: float = Field(default=1, ge=0)
    num_gpus: float = Field(default=0, ge=0)
    """A part of one, such as 0.5, lets actors share a GPU."""
    label_selector: dict[str, str] = {}
    """Ray's labels of the nodes to run on: `{ray.io/accelerator-type: in(A100, H100)}`."""

    @field_validator("label_selector")
    @classmethod
    def _without_blanks(cls, value: dict[str, str]) -> dict[str, str]:
        """Ray 2.60 takes the blank in in(A100, H100) for a part of the label."""
        return {key: wanted.replace(" ", "") for key, wanted in value.items()}

    @model_validator(mode="after")
    def _min_is_not_above_max(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class RerankConfig(BaseModel):
    """A whole offline job."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    input: InputConfig
    output: OutputConfig
    scorer: ScorerConfig
    actors: ActorsConfig = ActorsConfig()
    shard_pairs: PositiveInt = 20_000
    """Pairs a shard: the unit that is lost and done again when something dies."""
    reuse: str | None = Field(default=None, min_length=1)
    """The output directory of a finished run, whose scores are taken for pairs that it scored alike."""
    run_date: date | None = None
    """What {run_date} stands for in every field that says where things lie; never taken from the clock."""

    @model_validator(mode="before")
    @classmethod
    def _date_the_places(cls, tree: Any) -> Any:
        date_given = tree.get("run_date") if isinstance(tree, dict) else None
        return tree if date_given is None else _fill_in(tree, str(date_given))

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
        taken = sorted(set(score_columns(layers)) & self.output.keep_columns.keys())
        if taken:
            raise ValueError(
                f"output.keep_columns: the run has a {taken[0]} of its own; keep yours under another name"
            )
        return self

    @model_validator(mode="after")
    def _device_fits_the_actors(self) -> Self:
        device, gpus = self.scorer.device, self.actors.num_gpus
        if gpus and device in ("cpu", "mps"):
            raise ValueError(f"actors.num_gpus {gpus:g} holds GPUs that scorer.device {device} leaves idle")
        if not gpus and device.startswith("cuda"):
            raise ValueError(f"scorer.device {device} needs actors that hold a GPU: set actors.num_gpus")
        if device.startswith("cuda:"):
            raise ValueError(
                f"scorer.device {device}: Ray deals the GPUs out to the actors; write cuda or auto"
            )
        return self

    @property
    def placed_scorer(self) -> ScorerConfig:
        """The scorer on the device that its actors hold: `auto` is no GPU that Ray has not given."""
        if self.scorer.device != "auto":
            return self.scorer
        return self.scorer.model_copy(update={"device": "cuda" if self.actors.num_gpus else "cpu"})

    def determining_fields(self) -> dict[str, Any]:
        """Dotted field to value, of the fields that decide what the output holds."""
        fields = _flatten(self.model_dump(mode="json", exclude={"actors", "run_date"}))
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


_Config = TypeVar("_Config", bound=BaseModel)


def config_parser(command: str, description: str | None) -> argparse.ArgumentParser:
    """Of a command that takes what `load` does: its options `config` and `overrides`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m pipeline.{command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, required=True, help="a YAML file, see configs/")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="override one field",
    )
    return parser


def load_config(path: Path, overrides: list[str]) -> RerankConfig:
    """The job of `load`."""
    return load(RerankConfig, path, overrides)


def load(model: type[_Config], path: Path, overrides: list[str]) -> _Config:
    """Read a YAML file and apply `a.b=c` overrides to it.

    Raises ConfigError naming the field, and the line of the file where it stands.
    """
    lines: dict[str, int] = {}
    tree = _read(path, lines)
    if not isinstance(tree, dict):
        needed = [name for name, field in model.model_fields.items() if field.is_required()]
        raise ConfigError(f"{path}: needs the fields {', '.join(needed[:-1])} and {needed[-1]}; see configs/")
    for override in overrides:
        _apply(tree, override, lines)
    if tree.get("run_date") is not None and not any(_DATE in place for place in _places(tree).values()):
        raise ConfigError(f"{path}: run_date: no path uses it; write {_DATE} in output.path, or leave it out")
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        problems = "\n".join(_describe(path, problem, lines) for problem in error.errors())
        raise ConfigError(problems) from error


def _read(path: Path, lines: dict[str, int]) -> Any:
    try:
        text = path.read_text()
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        raise ConfigError(f"{path}: not YAML: {error}") from error
    _note_lines(node, "", lines)
    return tree


def _note_lines(node: yaml.Node | None, prefix: str, lines: dict[str, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            if name in lines:
                raise ConfigError(f"line {key.start_mark.line + 1}: {name} stands there a second time")
            lines[name] = key.start_mark.line + 1
            _note_lines(value, f"{name}.", lines)


def _apply(tree: dict[str, Any], override: str, lines: dict[str, int]) -> None:
    name, equals, text = override.partition("=")
    *parents, leaf = name.strip().split(".")
    if not equals or not leaf:
        raise ConfigError(f"--set {override}: write it as field.subfield=value")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"--set {override}: the value is not YAML: {error}") from error
    for parent in parents:
        if tree.get(parent) is None:
            tree[parent] = {}
        below = tree[parent]
        if not isinstance(below, dict):
            raise ConfigError(f"--set {override}: {parent} is a value, it has no fields")
        tree = below
    tree[leaf] = value
    lines[name.strip()] = 0


def _describe(path: Path, problem: Any, lines: dict[str, int]) -> str:
    field = ".".join(str(part) for part in problem["loc"])
    parents = [".".join(map(str, problem["loc"][:depth])) for depth in range(len(problem["loc"]), 0, -1)]
    line = next((lines[name] for name in parents if name in lines), None)
    where = "--set" if line == 0 else f"{path} line {line}" if line else str(path)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"{where}: {field}: there is no such field"
    if problem["type"] == "missing":
        return f"{where}: {field}: is required"
    message = _EXPECTED.get(problem["type"], message)
    shown = "" if isinstance(problem["input"], dict) else f", not {problem['input']!r}"
    return f"{where}: {field}: {message}{shown}" if field else f"{where}: {message}"


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= (
            _flatten(value, f"{prefix}{key}.")
            if isinstance(value, dict) and value
            else {f"{prefix}{key}": value}
        )
    return flat


def _places(tree: dict[str, Any]) -> dict[str, str]:
    """Dotted field to text, of the fields that say where things lie."""
    return {
        name: value
        for name, value in _flatten(tree).items()
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
