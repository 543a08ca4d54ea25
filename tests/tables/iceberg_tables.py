"""Iceberg tables, data files in their manifests, and deletion vectors, which pyiceberg does not write."""

import json
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyroaring
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


def puffin(vectors: dict[str, list[int]]) -> bytes:
    """A file of deletion vectors, by the data files that they are of: iceberg.apache.org/puffin-spec."""
    content, blobs = b"PFA1", []
    for path, deleted in vectors.items():
        vector = b"\xd1\xd3\x39\x64" + pyroaring.BitMap64(deleted).serialize()
        blob = len(vector).to_bytes(4, "big") + vector + zlib.crc32(vector).to_bytes(4, "big")
        properties = {"referenced-data-file": path, "cardinality": str(len(deleted))}
        blobs.append(
            {
                "type": "deletion-vector-v1",
                "fields": [],
                "snapshot-id": -1,
                "sequence-number": -1,
                "offset": len(content),
                "length": len(blob),
                "properties": properties,
            }
        )
        content += blob
    footer = json.dumps({"blobs": blobs}).encode()
    return content + b"PFA1" + footer + len(footer).to_bytes(4, "little") + bytes(4) + b"PFA1"


def in_version_3(table: Table) -> str:
    """The metadata file of the table as it is now, in the format that has deletion vectors."""
    old = Path(table.metadata_location.removeprefix("file://"))
    metadata = {**json.loads(old.read_text()), "format-version": 3, "next-row-id": 0}
    new = old.with_name("3.metadata.json")
    new.write_text(json.dumps(metadata))
    return str(new)


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
