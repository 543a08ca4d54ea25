"""Values taken from pages as they stand: equal to what Arrow reads, or left to Arrow."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.retrieval.plain_pages import plain_values
from pipeline.retrieval.vectors import read_vectors, write_vectors
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import stamped

LEAF = "embedding.list.element"
AS_WE_WRITE: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": False,
    "write_page_checksum": True,
    "data_page_size": 2**30,
    "max_rows_per_page": 10**6,
}


def vectors(rows: int, width: int, dtype: str) -> tuple[npt.NDArray[Any], pa.Table]:
    """(vectors, a table of them whose embeddings may be null)"""
    values = np.random.default_rng(rows).standard_normal((rows, width)).astype(dtype)
    columns = {
        "passage_id": pa.array([f"p{row}" for row in range(rows)]),
        "window": pa.array(np.zeros(rows, np.int32)),
        "hash": pa.array([row.to_bytes(16, "little") for row in range(rows)], pa.binary(16)),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), width),
    }
    table = pa.table(columns)
    return values, table.replace_schema_metadata(stamped(table.schema, "embeddings").metadata)


def required(table: pa.Table) -> pa.Table:
    """With embeddings that can't be null."""
    kind = table.schema.field("embedding").type
    element = pa.list_(pa.field("element", kind.value_type, nullable=False), kind.list_size)
    field = pa.field("embedding", element, nullable=False)
    return table.set_column(table.num_columns - 1, field, table["embedding"].cast(element))


def plain(content: bytes, dtype: str) -> list[npt.NDArray[Any] | None]:
    """Of each row group."""
    stream = io.BytesIO(content)
    with pq.ParquetFile(stream) as file:
        return [plain_values(stream, file, group, LEAF, dtype) for group in range(file.num_row_groups)]


@pytest.mark.parametrize(("rows", "width"), [(3000, 384), (100_000, 3), (50_000, 8), (7, 1), (2, 600_000)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_all_that_is_written_here_is_read_so(tmp_path: Path, rows: int, width: int, dtype: str) -> None:
    values, table = vectors(rows, width, dtype)
    write_vectors(Directory(str(tmp_path)), "vectors.parquet", table)
    parts = plain((tmp_path / "vectors.parquet").read_bytes(), dtype)
    found = np.concatenate([part for part in parts if part is not None]).reshape(-1, width)
    np.testing.assert_array_equal(found, values)
    by_arrow = pq.read_table(tmp_path / "vectors.parquet")["embedding"].combine_chunks().flatten()
    np.testing.assert_array_equal(found.ravel(), by_arrow.to_numpy(zero_copy_only=False))


OTHERS: dict[str, dict[str, Any]] = {
    "pages of version 2": {"data_page_version": "2.0"},
    "compressed": {"compression": "zstd"},
    "a dictionary": {"use_dictionary": True},
    "no checksums": {"write_page_checksum": False},
    "several pages": {"data_page_size": 4096},
    "bytes in streams": {"use_byte_stream_split": [LEAF]},
    "an index of pages": {"write_page_index": True, "data_page_size": 4096},
}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("other", OTHERS)
def test_what_is_written_otherwise_is_left_to_arrow(tmp_path: Path, other: str, dtype: str) -> None:
    values, table = vectors(1200, 6, dtype)
    path = tmp_path / "vectors.parquet"
    pq.write_table(required(table), path, row_group_size=400, **AS_WE_WRITE | OTHERS[other])
    assert plain(path.read_bytes(), dtype) == [None] * 3
    np.testing.assert_array_equal(read_vectors(str(path)).values, values)


def test_embeddings_that_may_be_null_are_left_to_arrow(tmp_path: Path) -> None:
    values, table = vectors(50, 6, "float32")
    path = tmp_path / "vectors.parquet"
    for compliant in (True, False):  # it may have another name, too
        pq.write_table(table, path, use_compliant_nested_type=compliant, **AS_WE_WRITE)
        assert plain(path.read_bytes(), "float32") == [None]
        np.testing.assert_array_equal(read_vectors(str(path)).values, values)
    pq.write_table(required(table), path, **AS_WE_WRITE)
    (found,) = plain(path.read_bytes(), "float32")
    assert found is not None


def test_lists_that_are_not_full_are_left_to_arrow() -> None:
    element = pa.list_(pa.field("element", pa.float32(), nullable=False))
    schema = pa.schema([pa.field("embedding", element, nullable=False)])
    stream = io.BytesIO()
    pq.write_table(pa.table({"embedding": [[1, 2], [], [3]]}, schema=schema), stream, **AS_WE_WRITE)
    assert plain(stream.getvalue(), "float32") == [None]


def test_no_changed_byte_gives_other_values() -> None:
    values, table = vectors(5, 16, "float32")
    stream = io.BytesIO()
    pq.write_table(required(table), stream, **AS_WE_WRITE)
    content = stream.getvalue()
    column = pq.ParquetFile(stream).metadata.row_group(0).column(3)
    left = []
    for at in range(column.data_page_offset, column.data_page_offset + column.total_compressed_size):
        (found,) = plain(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :], "float32")
        left.append(found is None)
        if found is not None:
            np.testing.assert_array_equal(found, values.ravel())
    assert all(left[-values.nbytes :])
    assert not all(left)  # the page's least and largest value, which nobody needs


def test_a_file_that_is_cut_or_lacks_bytes_is_named(tmp_path: Path) -> None:
    _, table = vectors(900, 6, "float32")
    write_vectors(Directory(str(tmp_path)), "vectors.parquet", table)
    path = tmp_path / "vectors.parquet"
    content = path.read_bytes()
    middle = len(content) // 2
    for damaged in (content[:-1], content[:middle], content[:middle] + content[middle + 4 :], b""):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"vectors.parquet: no readable embeddings: "):
            read_vectors(str(path))
