"""The first stage's scores, in a column of the candidate table."""

import pyarrow as pa
import pyarrow.compute as pc


def may_hold_scores(kind: pa.DataType) -> bool:
    """Whether a column of this type may: numbers, or text, as CSV has them."""
    types = pa.types
    kinds = (types.is_integer, types.is_floating, types.is_decimal, types.is_string)
    return any(is_kind(kind) for is_kind in kinds)


def as_scores(column: pa.Array) -> pa.Array:
    """float32, as all scores are; null where the value is none, is no number, or is not finite.

    column: of a type that `may_hold_scores`.
    """
    if pa.types.is_string(column.type):
        # As bytes: a text may be invalid, which is told elsewhere.
        texts = column.cast(pa.binary()).to_pylist()
        column = pa.array([None if text is None else _number(text) for text in texts], pa.float64())
    scores = column.cast(pa.float64(), safe=False).cast(pa.float32(), safe=False)
    return pc.if_else(pc.is_finite(scores), scores, pa.scalar(None, pa.float32()))


def _number(text: bytes) -> float | None:
    try:
        return None if b"_" in text else float(text)  # Python alone takes 1_0 for a number
    except ValueError:
        return None
