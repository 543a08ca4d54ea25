from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import InputError
from pipeline.tables.input.arrow_types import (
    as_lists,
    as_type,
    common_type,
    is_list,
    plain,
    plain_bytes,
    plain_type,
)


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (pa.null(), pa.string(), pa.string()),
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.uint32(), pa.int32(), pa.int64()),
        (pa.uint64(), pa.int8(), pa.int64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.int64(), pa.float32(), pa.float64()),
        (pa.timestamp("ms", "UTC"), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
        (pa.decimal128(10, 2), pa.decimal128(12, 3), pa.decimal128(12, 3)),
        (pa.list_(pa.null()), pa.list_(pa.string()), pa.list_(pa.string())),
        (
            pa.struct([("a", pa.null())]),
            pa.struct([("a", pa.int8()), ("b", pa.string())]),
            pa.struct([("a", pa.int8()), ("b", pa.string())]),
        ),
        (pa.string(), pa.int64(), None),
        (pa.string(), pa.binary(), None),
        (pa.bool_(), pa.int8(), None),
        (pa.decimal128(10, 2), pa.float64(), None),
        (pa.list_(pa.decimal128(38, 2)), pa.list_(pa.float64()), None),
        (pa.struct([("a", pa.binary())]), pa.struct([("b", pa.int8()), ("a", pa.string())]), None),
        (pa.map_(pa.string(), pa.binary()), pa.map_(pa.string(), pa.string()), None),
        (pa.binary(3), pa.string(), None),
        (pa.timestamp("us", "UTC"), pa.timestamp("us"), None),
        (pa.date32(), pa.timestamp("us"), None),
        (pa.list_(pa.string()), pa.string(), None),
    ],
)
def test_two_types_have_one_in_common_or_none(
    one: pa.DataType, other: pa.DataType, together: pa.DataType | None
) -> None:
    assert common_type(one, other) == together
    assert common_type(other, one) == together


@pytest.mark.parametrize(
    ("values", "held", "target"),
    [
        ([2**53 + 1], pa.int64(), pa.float64()),
        ([2**64 - 1], pa.uint64(), pa.int64()),
        ([2**40], pa.timestamp("s"), pa.timestamp("ns")),
    ],
)
def test_a_value_that_would_be_lost_is_named(
    values: list[Any], held: pa.DataType, target: pa.DataType
) -> None:
    assert as_type(pa.array([1], held), target, "a.parquet: column 'n'").to_pylist()
    with pytest.raises(InputError, match=r"^a.parquet: column 'n' is .* here and .* Write the column in one"):
        as_type(pa.array(values, held), target, "a.parquet: column 'n'")


NULLS = [
    ([[None] * 5] * 2, pa.list_(pa.null())),
    ([[None] * 5] * 2, pa.large_list(pa.null())),
    ([[[None] * 3] * 4] * 2, pa.list_(pa.list_(pa.null()))),
    ([[{"a": "x", "t": None}] * 5] * 2, pa.list_(pa.struct([("a", pa.string()), ("t", pa.null())]))),
    ([[{"a": "x", "t": None}] * 5] * 2, pa.list_(pa.struct([("a", pa.large_string()), ("t", pa.null())]))),
    ([[("k", None)] * 5] * 2, pa.map_(pa.string(), pa.null())),
    ([[None] * 3] * 2, pa.list_(pa.null(), 3)),
]


@pytest.mark.parametrize(("values", "held"), NULLS)
def test_what_is_null_everywhere_inside_of_lists_is_read(values: list[Any], held: pa.DataType) -> None:
    """More items than rows, which a cast to the same type cuts off (pyarrow 26)."""
    column = pa.array(values, held)
    for read in (plain(column), plain(column.slice(1)), as_type(column, plain_type(held), "here")):
        read.validate(full=True)
        assert read.to_pylist() == values[: len(read)]
    if is_list(held):
        lists = as_lists(column, pa.list_(plain_type(held.value_type)))
        lists.validate(full=True)
        assert lists.to_pylist() == values


@pytest.mark.parametrize("items", [0, 1])
def test_lists_that_are_all_null_have_a_size_whatever_would_be_in_them(items: int) -> None:
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16] * items, pa.binary(16)))
    inside = pa.StructArray.from_arrays([uuids], ["id"])
    lists = pa.ListArray.from_arrays(pa.array([0, items], pa.int32()), inside, mask=pa.array([True]))
    assert plain_bytes(lists) == 4
    assert plain(lists).to_pylist() == [None]


def test_what_differs_in_memory_only_is_one_type() -> None:
    wide = pa.large_list(pa.struct([("a", pa.dictionary(pa.int8(), pa.large_string()))]))
    assert plain_type(wide) == pa.list_(pa.struct([("a", pa.string())]))
    assert plain(pa.array([[{"a": "x"}], None], wide)).to_pylist() == [[{"a": "x"}], None]
