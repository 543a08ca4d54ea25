"""What pydantic finds wrong with a config, in words: the same for YAML, --set, Serve's args and Python."""

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import ConfigError

_EXPECTED = {
    "tuple_type": "needs a list, such as [28]",
    "model_type": "needs a mapping, such as {field: value}",
    "too_short": "needs one value or more",
}
"""Where pydantic speaks of Python's types."""
_SHOWN_CHARS = 200


def reason_of(model: type[BaseModel], problem: Any) -> str:
    """One entry of ValidationError.errors(), without the field: what is wrong with it, and the way out."""
    if problem["type"] == "extra_forbidden":
        *parents, name = problem["loc"]
        return f"there is no such field{_hint(_model_at(model, parents), str(name))}"
    if problem["type"] == "missing":
        return "is required"
    message = _EXPECTED.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    return message if isinstance(problem["input"], dict) else f"{message}, not {_shown(problem['input'])}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


def field_of(problem: Any) -> str:
    """Its field, dotted; empty where it is of the whole."""
    return ".".join(str(part) for part in problem["loc"])


class Config(BaseModel):
    """A config that people make in Python too: a wrong call raises ConfigError, with a line a field."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    if not TYPE_CHECKING:  # a type checker goes by the fields

        def __init__(self, *values: Any, **fields: Any) -> None:
            model = type(self)
            if values:
                first = next(iter(model.model_fields))
                raise ConfigError(f"name the fields: {model.__name__}({first}={values[0]!r})")
            try:
                super().__init__(**fields)
            except ValidationError as error:
                problems = [(field_of(problem), reason_of(model, problem)) for problem in error.errors()]
                lines = [f"{field}: {reason}" if field else reason for field, reason in problems]
                raise ConfigError("\n".join(lines), field=problems[0][0] or None) from None

        # Says that this is no __init__ of our own to call for what is validated as a part of another model.
        __init__.__pydantic_base_init__ = True


def _model_at(annotation: Any, parents: list[Any]) -> type[BaseModel] | None:
    """The model that holds the fields at a place below another one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not parents:
            return annotation
        field = annotation.model_fields.get(str(parents[0]))
        return None if field is None else _model_at(field.annotation, parents[1:])
    members = [member for member in get_args(annotation) if member is not type(None)]
    has_keys = getattr(annotation, "__origin__", None) in (dict, tuple)
    below = parents[1:] if has_keys else parents
    return next((found for member in members if (found := _model_at(member, below)) is not None), None)


def _hint(model: type[BaseModel] | None, name: str) -> str:
    """What to write in place of a field that is not there, where that can be told."""
    if model is None:
        return ""
    elsewhere: dict[str, str] = getattr(model, "NAMES_ELSEWHERE", {})
    if name in elsewhere:
        return f"; here it is {elsewhere[name]}"
    near = get_close_matches(name, model.model_fields, n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""
