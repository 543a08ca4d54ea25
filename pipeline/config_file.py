"""Reads a command's config: a YAML file, overrides of its fields, and errors that name field and line."""

from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from pipeline import yaml_text
from pipeline.config_problems import field_of, problems_of, reason_of
from pipeline.errors import ConfigError
from pipeline.plain_file import open_plain
from pipeline.yaml_text import YamlError

_SHOWN_CHARS = 80

_Config = TypeVar("_Config", bound=BaseModel)


def load(model: type[_Config], path: Path, overrides: list[str]) -> _Config:
    """Read a YAML file and apply `a.b=c` overrides to it.

    Where the field is a text its value is taken as typed: YAML would end it at ` #`, and make a number, a
    date or true of it. There `null` alone has a meaning, if the field may be null. Other fields take YAML.
    Raises ConfigError naming the field, and the line of the file where it stands.
    """
    lines: dict[str, int] = {}
    tree = _read(path, lines)
    if not isinstance(tree, dict):
        needed = [name for name, field in model.model_fields.items() if field.is_required()]
        raise ConfigError(f"{path}: needs the fields {', '.join(needed[:-1])} and {needed[-1]}; see configs/")
    for override in overrides:
        _apply(model, tree, override, lines)
    _check_texts(path, tree, "")
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        problems = "\n".join(_describe(model, path, problem, lines) for problem in problems_of(error))
        raise ConfigError(problems) from error


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted field to value, of nested mappings; an empty mapping is a value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        is_section = isinstance(value, dict) and value
        flat |= flatten(value, f"{prefix}{key}.") if is_section else {f"{prefix}{key}": value}
    return flat


def _read(path: Path, lines: dict[str, int]) -> Any:
    try:
        with open_plain(path, piped=True) as stream:
            text = stream.read().decode("utf-8-sig")
        node, tree = yaml_text.parse(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 text; where it is UTF-16, convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW"
        ) from error
    except YamlError as error:
        raise ConfigError(f"{path}: {error}") from error
    _note_lines(path, node, "", lines)
    return tree


def _check_texts(path: Path, value: Any, field: str) -> None:
    """Raises ConfigError for a text that is none: libraries below fail over it, each in its way."""
    if isinstance(value, dict):
        for key, below in value.items():
            _check_texts(path, str(key), field)
            _check_texts(path, below, f"{field}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for below in value:
            _check_texts(path, below, field)
    elif isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"{path}: {field}: {value[:_SHOWN_CHARS]!a} is no text in Unicode") from error


def _note_lines(path: Path | str, node: yaml.Node | None, prefix: str, lines: dict[str, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":  # its fields may be given again beside it
                continue
            name = f"{prefix}{key.value}"
            if name in lines:
                line = key.start_mark.line + 1
                raise ConfigError(f"{path} line {line}: {name} stands there a second time")
            lines[name] = key.start_mark.line + 1
            _note_lines(path, value, f"{name}.", lines)
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            lines[f"{prefix}{number}"] = item.start_mark.line + 1
            _note_lines(path, item, f"{prefix}{number}.", lines)


def _apply(model: type[BaseModel], tree: dict[str, Any], override: str, lines: dict[str, int]) -> None:
    name, equals, text = override.partition("=")
    (*parents, leaf), annotation = _field(model, name.strip().split("."))
    if not equals or not leaf:
        raise ConfigError(f"--set {override}: write it as field.subfield=value")
    try:
        node, value = (None, _text(text, annotation)) if _is_text(annotation) else yaml_text.parse(text)
    except YamlError as error:
        raise ConfigError(f"--set {override[:_SHOWN_CHARS]}: {error}") from error
    _note_lines("--set", node, f"{name.strip()}.", {})
    section: Any = tree
    for depth, parent in enumerate(parents, start=1):
        if isinstance(section, dict) and section.get(parent) is None:
            section[parent] = {}
            lines[".".join(parents[:depth])] = 0
        section = section[_key(section, parent, override)]
        if not isinstance(section, dict | list):
            raise ConfigError(f"--set {override}: {parent} is a value, it has no fields")
    section[_key(section, leaf, override)] = value
    for known in [known for known in lines if known.startswith(f"{name.strip()}.")]:
        del lines[known]  # what the file has there is no longer read
    lines[name.strip()] = 0


def _key(section: dict[str, Any] | list[Any], name: str, override: str) -> Any:
    """By which a mapping holds the field, or a list its entry; those are numbered from 0."""
    if isinstance(section, dict):
        return name
    if not name.isdecimal() or int(name) >= len(section):
        raise ConfigError(
            f"--set {override}: there is no {name} in the list, which has {len(section)} entries,"
            " counted from 0"
        )
    return int(name)


def _field(annotation: Any, names: list[str]) -> tuple[list[str], Any]:
    """The keys under which a dotted name stands in the tree, and the annotation of what stands there.

    In a mapping of texts the rest of the name is one key, dots and all. Null for a field that is not known.
    """
    for kind in _alternatives(annotation) if names else ():
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(names[0])
            keys, found = _field(None if field is None else field.annotation, names[1:])
            return [names[0], *keys], found
        if get_origin(kind) is dict and _is_text(get_args(kind)[1]):
            return [".".join(names)], get_args(kind)[1]
        if get_origin(kind) is tuple:
            keys, found = _field(get_args(kind)[0], names[1:])
            return [names[0], *keys], found
    return names, None if names else annotation


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union, without what is noted beside a type."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for member in get_args(annotation) for kind in _alternatives(member)]
    return [annotation]


def _text(text: str, annotation: Any) -> str | None:
    return None if text == "null" and NoneType in _alternatives(annotation) else text


def _is_text(annotation: Any) -> bool:
    kinds = [kind for kind in _alternatives(annotation) if kind is not NoneType]
    return all(kind is str or (get_origin(kind) is Literal and _is_words(kind)) for kind in kinds)


def _is_words(kind: Any) -> bool:
    return all(isinstance(value, str) for value in get_args(kind))


def _describe(model: type[BaseModel], path: Path, problem: Any, lines: dict[str, int]) -> str:
    field = field_of(problem)
    parents = [".".join(map(str, problem["loc"][:depth])) for depth in range(len(problem["loc"]), 0, -1)]
    line = next((lines[name] for name in parents if name in lines), None)
    where = "--set" if line == 0 else f"{path} line {line}" if line else str(path)
    if line and any(number == 0 and name.startswith(f"{field}.") for name, number in lines.items()):
        where = f"{where}, with --set"
    reason = reason_of(model, problem)
    return f"{where}: {field}: {reason}" if field else f"{where}: {reason}"
