"""Numbers in a column of a table, such as the first stage's scores: as such, or as text, as CSV has them."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.tables.schema import is_text


def may_hold_numbers(kind: pa.DataType) -> bool:
    """Whether a column of this type may. A Boolean is none."""
    types = pa.types
    kinds = (types.is_integer, types.is_floating, types.is_decimal, is_text)
    return any(is_kind(kind) for is_kind in kinds)


def as_numbers(column: pa.Array) -> pa.Array:
    """float64; null where the value is none, is no number, or is not finite.

    column: of a type that `may_hold_numbers`.
    """
    if is_text(column.type):
        # As bytes: a text may be invalid, which is told elsewhere.
        texts = column.cast(pa.large_binary()).to_pylist()
        column = pa.array([None if text is None else _number(text) for text in texts], pa.float64())
    return _finite(column.cast(pa.float64(), safe=False))


def as_scores(column: pa.Array) -> pa.Array:
    """The same in float32, as all scores are; null where it has no room for the value, too."""
    return _finite(as_numbers(column).cast(pa.float32(), safe=False))


def _finite(numbers: pa.Array) -> pa.Array:
    return pc.if_else(pc.is_finite(numbers), numbers, pa.scalar(None, numbers.type))


def _number(text: bytes) -> float | None:
    try:
        return None if b"_" in text else float(text)  # Python alone takes 1_0 for a number
    except ValueError:
        return None
