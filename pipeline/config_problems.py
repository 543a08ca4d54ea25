"""What pydantic finds wrong with a config, in words: the same for YAML, --set, Serve's args and Python."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import ConfigError

_EXPECTED = {
    "model_type": "needs a mapping, such as {field: value}",
    "dict_type": "needs a mapping, such as {name: value}",
    "too_short": "needs one value or more",
}
"""Where pydantic speaks of Python's types."""
_WITHOUT_POINT = re.compile(r"([-+]?[0-9]+(?:\.[0-9]*)?)[eE]([-+]?)([0-9]+)")
"""A number to people and to YAML 1.2. To YAML 1.1, which Serve reads too, it is a text: 6e-5, 6.0e5."""
_SHOWN_CHARS = 200
_PLACES_TOLD = 3


def problems_of(error: ValidationError) -> list[Any]:
    """Its errors(), without what only follows: to pydantic a list lacks its values that don't fit."""
    problems: list[Any] = error.errors()
    places = [each["loc"] for each in problems]
    return [
        each
        for each in problems
        if each["type"] != "too_short"
        or not any(place != each["loc"] and place[: len(each["loc"])] == each["loc"] for place in places)
    ]


def reason_of(model: type[BaseModel], problem: Any, under: str = "") -> str:
    """One entry of `problems_of`, without the field: what is wrong with it, and the way out.

    under: what stands before the model's fields where users write them, such as `args.`
    """
    if problem["type"] == "extra_forbidden":
        *parents, name = problem["loc"]
        hint = _hint(model, parents, str(name))
        places = _places(model, parents, str(name), under)
        if not hint and not places:
            return f"there is no such field{_fields_at(model, parents)}"
        there = f" There {places}" if hint.endswith("?") else f"; there {places}"
        return f"there is no such field{hint}{there if places else ''}"
    if problem["type"] == "missing":
        return "is required"
    message: str = _EXPECTED.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    if problem["type"] == "tuple_type":
        message = f"needs a list, such as {_example(model, problem)}"
    given = problem["input"]
    if isinstance(given, dict):
        return message
    return f"{message}, not {_shown(given)}{_in_yaml(given) if problem['type'] == 'float_type' else ''}"


def _in_yaml(given: Any) -> str:
    found = _WITHOUT_POINT.fullmatch(given) if isinstance(given, str) else None
    if found is None:
        return ""
    digits, sign, exponent = found.groups()
    with_point = digits if "." in digits else f"{digits}.0"
    return f"; YAML needs a point and a sign: {with_point}e{sign or '+'}{exponent}"


def _example(model: type[BaseModel], problem: Any) -> str:
    """A list as the field takes it: of what was written, where that is a text as the field has them."""
    *parents, name = problem["loc"]
    holder = _model_at(model, parents)
    field = None if holder is None else holder.model_fields.get(str(name))
    kinds = () if field is None else _of_a_tuple(field.annotation)
    members = [kind for kind in kinds if kind is not Ellipsis]
    if any(_model_at(kind, []) for kind in members):
        return "[{field: value}]"
    if all(kind is not str for kind in members):
        given = problem["input"]
        one = given if isinstance(given, int | float) else 28
        return "[2, 200]" if len(members) == 2 else f"[{one}]"
    return f"[{problem['input']}]" if isinstance(problem["input"], str) else "[text]"


def _of_a_tuple(annotation: Any) -> tuple[Any, ...]:
    """The types of what a tuple holds, be it a member of a union or beside notes."""
    if get_origin(annotation) is tuple:
        return get_args(annotation)
    return next((found for kind in get_args(annotation) if (found := _of_a_tuple(kind))), ())


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
                problems = [(field_of(problem), reason_of(model, problem)) for problem in problems_of(error)]
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


def _places(model: type[BaseModel], parents: list[Any], name: str, under: str) -> str:
    """Where a field of this name stands elsewhere in the config; nothing where too many do to be of help."""
    found = list(dict.fromkeys(_fields_named(name, model, "", list(map(str, parents)), ())))
    if not 0 < len(found) <= _PLACES_TOLD:
        return ""
    top = "" if under or any("." in place for place in found) else " at the top level"
    return f"{'is' if len(found) == 1 else 'are'} {' and '.join(under + place for place in found)}{top}"


def _fields_named(
    name: str, annotation: Any, at: str, beside: list[str], above: tuple[Any, ...]
) -> Iterator[str]:
    """Dotted. beside: the keys of a mapping or list that the user was in, which stand in for N and NAME.

    above: the models on the way, since one may hold itself.
    """
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation in above:
            return
        for field, known in annotation.model_fields.items():
            if field == name:
                yield f"{at}{field}"
            further = beside[1:] if beside[:1] == [field] else []
            yield from _fields_named(name, known.annotation, f"{at}{field}.", further, (*above, annotation))
        return
    origin = get_origin(annotation)
    for member in get_args(annotation):
        if origin in (dict, tuple, list):
            key, *further = beside or ["NAME" if origin is dict else "N"]
            yield from _fields_named(name, member, f"{at}{key}.", further, above)
        else:
            yield from _fields_named(name, member, at, beside, above)


def _fields_at(whole: type[BaseModel], parents: list[Any]) -> str:
    """The fields that are there, for a name that is near to none of them."""
    model = _model_at(whole, parents)
    return "" if model is None else f"; the fields here are {', '.join(model.model_fields)}"


def _hint(whole: type[BaseModel], parents: list[Any], name: str) -> str:
    """What to write in place of a field that is not there, where that can be told.

    The model that holds the field knows other names by its own fields, the whole config by dotted ones.
    """
    model = _model_at(whole, parents)
    if model is None:
        return ""
    for known in (model, whole):
        elsewhere: dict[str, str] = getattr(known, "NAMES_ELSEWHERE", {})
        if name in elsewhere:
            return f"; here it is {elsewhere[name]}"
    near = get_close_matches(name, model.model_fields, n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""
