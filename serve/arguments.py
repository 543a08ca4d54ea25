"""The `args` of a Serve config, and all that is wrong with them as far as it shows before a deploy."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.config_problems import field_of, problems_of, reason_of
from pipeline.errors import ConfigError, RayrankError
from serve.config import ApiConfig, ModelConfig, ServeConfig
from serve.keys import Keyring

_ARGS = "args."
"""Where the config stands in Serve's file."""
_KEYS = "api", "keys"
_DECISIVE = {"scorer", "keys", "anyone"}
"""Fields that the other checks go by: without one, they would tell of what nobody wrote."""
_HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
"""Ray Serve's: requests reach the API through HAProxy, which hides their addresses."""

Part = TypeVar("Part", bound=BaseModel)


@dataclass(frozen=True)
class Arguments:
    """What was given: as a whole, and where it has mistakes, the parts that have none."""

    config: ServeConfig | None
    """None: there are mistakes."""
    api: ApiConfig | None
    models: Mapping[str, ModelConfig]
    mistakes: list[str]
    """Each with its field."""


def read_arguments(arguments: dict[str, Any]) -> Arguments:
    try:
        config = ServeConfig.model_validate(arguments)
    except ValidationError as error:
        problems = problems_of(error)
    else:
        return Arguments(config, config.api, config.models, [])
    right = _without_mistakes(arguments, problems)
    models = right.get("models")
    valid = {
        name: model
        for name, fields in (models.items() if isinstance(models, dict) else ())
        if isinstance(name, str) and (model := _valid(ModelConfig, fields)) is not None
    }
    mistakes = list(dict.fromkeys(map(_told, problems)))  # of a union each member tells one
    return Arguments(None, _valid(ApiConfig, right.get("api")), valid, mistakes)


def _without_mistakes(arguments: dict[str, Any], problems: list[Any]) -> dict[str, Any]:
    """A copy that lacks the fields with a mistake, so that one hides no other: of a model with a mistyped
    max_wait_s it can still be told that its checkpoint is missing.
    """
    right = deepcopy(arguments)
    for problem in problems:
        place = problem["loc"]
        if not _DECISIVE.isdisjoint(place):
            continue
        holder, field, part = right, "", right
        for name in place:
            if isinstance(part, dict):
                holder, field = part, name
            try:
                part = part[name]
            except (KeyError, IndexError, TypeError):  # a required field, or a member of a union
                break
        if holder is not right:
            holder.pop(field, None)
    return right


def _valid(kind: type[Part], fields: Any) -> Part | None:
    try:
        return kind.model_validate(fields)
    except ValidationError:
        return None


def _told(problem: Any) -> str:
    if problem["loc"][:2] == _KEYS and problem["type"] != "missing":  # what stands there may be a key
        return f"{_ARGS}api.keys: needs none, {{env: NAME}} or {{file: PATH}}"
    return f"{_ARGS}{field_of(problem)}: {reason_of(ServeConfig, problem, _ARGS)}"


def mistakes_in_keys(api: ApiConfig | None, environment: Mapping[str, str]) -> Iterator[str]:
    """The first, with its field. environment: of the API's processes."""
    if api is None:
        return
    if api.keys != "none":
        try:
            Keyring(api.keys, environment)
        except ConfigError as error:
            yield f"{_ARGS}{error}"
    elif not api.anyone and environment.get(_HAPROXY) == "1":
        yield (
            f"{_ARGS}api.keys: with {_HAPROXY}=1 it can't be seen on which machine a client is: give keys,"
            " or set anyone"
        )


def mistakes_in_models(models: Mapping[str, ModelConfig]) -> Iterator[str]:
    """The first of each model and level, as far as it shows without weights, with its field."""
    # It brings torch, which the proxies and the API's processes would import, too.
    from serve.replica import check  # noqa: PLC0415  (see above)

    for name, model in models.items():
        for number, single in enumerate(model.singles(name).values()):
            try:
                check(single.placed_scorer)
            except RayrankError as error:
                level = "" if model.levels is None else f"levels.{number}."
                yield f"{_ARGS}models.{name}.{level}scorer: {error}"
