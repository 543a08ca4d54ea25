"""YAML from outside: read in bounds, every value one that a config may hold."""

import math
from typing import Any

import yaml

_MOST_NODES, _MOST_LEVELS = 100_000, 50
_LEAST, _LARGEST = -(2**63), 2**63 - 1


class YamlError(ValueError):
    """In words, with the line where it is known."""


class _Loader(yaml.SafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except YamlError:
            raise
        except ValueError as error:  # of a date that no calendar has, of a number of thousands of digits
            line = node.start_mark.line + 1
            raise YamlError(f"line {line}: {str(node.value)[:40]} can't be read: {error}") from error


def parse(text: str) -> tuple[yaml.Node | None, Any]:
    """The nodes, which know their lines, and the value.

    Raises YamlError for what is no YAML, what nests too deep, refers to itself or multiplies by references,
    and for numbers beyond 64 bits or that are none.
    """
    try:
        node, constructed = (yaml.compose(text, _Loader) for _ in range(2))
        if node is None or constructed is None:
            return None, None
        _size(node, [], {})
        # This puts what `<<` merges into the nodes, as if it stood there.
        value = _Loader("").construct_document(constructed)
    except RecursionError as error:
        raise YamlError("it nests too deep") from error
    except YamlError:
        raise
    except yaml.YAMLError as error:
        cure = "; between { and }, write a path with a date in quotes" if "_date}" in str(error) else ""
        raise YamlError(f"not YAML: {error}{cure}") from error
    _check_numbers(value, "")
    return node, value


def _size(node: yaml.Node, above: list[int], known: dict[int, int]) -> int:
    """How many nodes there are with all that is referred to, each as often as it is."""
    if id(node) in above:
        raise YamlError(f"line {node.start_mark.line + 1}: it refers to itself")
    if len(above) > _MOST_LEVELS:
        raise YamlError(f"line {node.start_mark.line + 1}: it nests deeper than {_MOST_LEVELS} levels")
    if id(node) not in known:
        inside: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            inside = node.value
        elif isinstance(node, yaml.MappingNode):
            inside = [each for pair in node.value for each in pair]
        known[id(node)] = 1 + sum(_size(each, [*above, id(node)], known) for each in inside)
        if known[id(node)] > _MOST_NODES:
            raise YamlError(f"line {node.start_mark.line + 1}: it holds more than {_MOST_NODES} values")
    return known[id(node)]


def _check_numbers(value: Any, field: str) -> None:
    if isinstance(value, dict):
        for key, below in value.items():
            _check_numbers(below, f"{field}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for below in value:
            _check_numbers(below, field)
    elif isinstance(value, float) and not math.isfinite(value):
        raise YamlError(f"{field}: {value} is no number that a config can hold".lstrip(": "))
    elif isinstance(value, int) and not _LEAST <= value <= _LARGEST:
        raise YamlError(f"{field}: a number of {value.bit_length()} bits is beyond 64".lstrip(": "))
