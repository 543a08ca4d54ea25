"""Iceberg tables, and data files in their manifests."""

from typing import Any

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from tests.tables.conftest import Row


def write(catalog: SqlCatalog, table: list[Row]) -> Table:
    data = pa.Table.from_pylist(table)
    written = catalog.create_table("search.candidates", data.schema)
    written.append(data)
    return written


def in_manifest(url: str, partition: Record, spec_id: int, **options: Any) -> DataFile:
    made = DataFile.from_args(
        **{"content": DataFileContent.DATA, "file_format": FileFormat.PARQUET, **options},
        file_path=url,
        partition=partition,
        record_count=1,
        file_size_in_bytes=1,
    )
    made.spec_id = spec_id
    return made
