import decimal

import numpy as np
import pyarrow as pa
import pytest

from pipeline.tables.input.numeric_columns import as_numbers, as_scores, may_hold_numbers


@pytest.mark.parametrize(
    ("values", "kind", "scores"),
    [
        ([1, None, -3], pa.int64(), [1.0, None, -3.0]),
        ([1.5, float("nan"), float("-inf"), 1e39], pa.float64(), [1.5, None, None, None]),
        ([decimal.Decimal("2.50")], pa.decimal128(5, 2), [2.5]),
        (["7", " -1e2 ", "", "nan", "1_0", "12,5", "x", None], pa.string(), [7.0, -100.0, *[None] * 6]),
        ([], pa.string(), []),
    ],
)
def test_what_is_a_finite_number_is_a_score(
    values: list[object], kind: pa.DataType, scores: list[float | None]
) -> None:
    found = as_scores(pa.array(values, kind))
    assert found.type == pa.float32()
    assert found.to_pylist() == scores


def test_a_number_keeps_the_digits_that_a_score_has_no_room_for() -> None:
    found = as_numbers(pa.array(["0.1", "1e39", "1e999", "x"], pa.large_string()))
    assert found.type == pa.float64()
    assert found.to_pylist() == [0.1, 1e39, None, None]


def test_a_text_that_is_none_has_no_score() -> None:
    broken = pa.array([b"\xff1", b"1"], pa.binary()).view(pa.string())
    assert as_scores(broken).to_pylist() == [None, np.float32(1)]


def test_which_columns_may_hold_numbers() -> None:
    assert all(map(may_hold_numbers, (pa.int8(), pa.float16(), pa.decimal128(5, 2), pa.string())))
    assert not any(map(may_hold_numbers, (pa.null(), pa.bool_(), pa.list_(pa.float32()), pa.binary())))
