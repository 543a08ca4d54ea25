"""JSON values as Arrow's: the type that several have in common, and a value of that type."""

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa


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
    return float(value) if pa.types.is_floating(kind) and isinstance(value, int) else value
