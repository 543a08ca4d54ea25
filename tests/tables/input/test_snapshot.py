import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.errors import InputError
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
