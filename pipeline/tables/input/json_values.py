"""JSON values as Arrow's: the type that several have in common, and a value of that type."""

import json
import math
import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from pipeline.tables.input.limits import Limits

_BRACKETS = re.compile(rb'[\[\]{}]|"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
"""And texts, whose brackets are none."""


def parse(line: bytes) -> Any:
    """The value on a line.

    Raises ValueError for what is no JSON, an object with one key twice, and a number that no float64 holds.
    """
    return json.loads(line.decode("utf-8-sig"), object_pairs_hook=_object, parse_float=_float)


def check_depth(line: bytes, place: str, limits: Limits) -> None:
    """Raises InputError where its lists and objects nest deeper than `limits` allow."""
    deepest = limits.max_json_depth
    if line.count(b"[") + line.count(b"{") <= deepest:
        return
    depth = 0
    for token in _BRACKETS.finditer(line):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token.group(), 0)
        if depth > deepest:
            raise limits.exceeded(place, "it nests too deep", "max_json_depth")


def type_of(value: object) -> pa.DataType:
    """Null, a Boolean, an integer or a number as such; all else as text."""
    if value is None:
        return pa.null()
    if isinstance(value, int) and abs(value) >= 2**63:
        return pa.string()
    simple = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    return simple.get(type(value), pa.string())


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type for values of both types: numbers as numbers, all else as text."""
    if pa.types.is_null(other) or one == other:
        return one
    if pa.types.is_null(one):
        return other
    return pa.float64() if {one, other} == {pa.int64(), pa.float64()} else pa.string()


def common_types(rows: Iterable[dict[str, Any]]) -> dict[str, pa.DataType]:
    """Every key with the type that its values have in common; text where there are none."""
    types: dict[str, pa.DataType] = {}
    for row in rows:
        for name, value in row.items():
            types[name] = common_type(types.get(name, pa.null()), type_of(value))
    return {name: pa.string() if pa.types.is_null(kind) else kind for name, kind in types.items()}


def as_type(value: Any, kind: pa.DataType) -> Any:
    """A value as one of a type that holds it: see `common_type`. Text holds what is none as JSON."""
    if pa.types.is_string(kind) and value is not None and not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if pa.types.is_floating(kind) and isinstance(value, int):
        if int(float(value)) != value:
            raise ValueError(
                f"{value} stands in a column with fractions, and no float64 holds it; write it as text"
            )
        return float(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in an object")
    return value


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large for a float64")
    return value
