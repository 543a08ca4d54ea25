import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline.errors import InputError
from pipeline.tables.input.snapshot import as_declared
from tests.tables.conftest import plan


def test_versions_go_with_tables(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="version goes with delta, iceberg and lance"):
        plan(tmp_path, "parquet", version=3)


@pytest.mark.parametrize(
    ("table_format", "package"), [("delta", "deltalake"), ("iceberg", "pyiceberg.table"), ("lance", "lance")]
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table_format: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    needs = rf"format {table_format} needs a package .*pip install 'rayrank\[{table_format}\]'"
    with pytest.raises(InputError, match=needs):
        plan(tmp_path / "t.metadata.json", table_format)


INSIDE, DECLARED = pa.struct([("x", pa.int64())]), pa.struct([("y", pa.string()), ("x", pa.int64())])


@pytest.mark.parametrize(
    ("held", "declared", "values", "expected"),
    [
        (
            INSIDE,
            DECLARED,
            [{"x": 1}, None, {"x": None}],
            [{"y": None, "x": 1}, None, {"y": None, "x": None}],
        ),
        *(
            (
                list_of(INSIDE),
                list_of(DECLARED),
                [[{"x": 1}], None, [None]],
                [[{"y": None, "x": 1}], None, [None]],
            )
            for list_of in (pa.list_, lambda kind: pa.list_(kind, 1))
        ),
        (
            pa.map_(pa.string(), INSIDE),
            pa.map_(pa.string(), DECLARED),
            [[("a", {"x": 1})], None, []],
            [[("a", {"y": None, "x": 1})], None, []],
        ),
        (
            pa.list_(pa.struct([("l", pa.list_(INSIDE))])),
            pa.list_(pa.struct([("l", pa.list_(DECLARED))])),
            [[{"l": [{"x": 1}, None]}, {"l": None}], None, []],
            [[{"l": [{"y": None, "x": 1}, None]}, {"l": None}], None, []],
        ),
    ],
)
def test_fields_that_a_file_lacks_are_null(
    held: pa.DataType, declared: pa.DataType, values: list[Any], expected: list[Any]
) -> None:
    column = pa.array(values * 3, held)
    for start, stop in ((0, 9), (1, 8), (4, 5), (3, 3)):
        made = as_declared(pa.chunked_array([column.slice(start, stop - start)]), declared)
        made.validate(full=True)
        assert made.type == declared
        assert made.to_pylist() == (expected * 3)[start:stop]
    assert as_declared(pa.chunked_array([], held), declared).to_pylist() == []
