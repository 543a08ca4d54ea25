"""Files of vectors: written, read into memory of their own or in turn, and damaged."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import InputError
from pipeline.retrieval.vectors import Room, read_hashes, read_vectors, write_vectors
from pipeline.tables.output.directory import Directory


def write(
    folder: Path, name: str, rows: int, dtype: str = "float32"
) -> tuple[str, "np.ndarray[tuple[int, int]]"]:
    """(path, vectors)"""
    values = np.random.default_rng(rows).standard_normal((rows, 6)).astype(dtype)
    columns = {
        "passage_id": pa.array([f"p{row}" for row in range(rows)]),
        "window": pa.array(np.zeros(rows, np.int32)),
        "hash": pa.array([row.to_bytes(16, "little") for row in range(rows)], pa.binary(16)),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 6),
    }
    write_vectors(Directory(str(folder)), name, pa.table(columns))
    return str(folder / name), values


def test_files_are_read_in_turn_into_the_same_memory(tmp_path: Path) -> None:
    room = Room()
    for rows, dtype in ((40, "float32"), (7, "float16"), (90, "float16"), (0, "float32"), (40, "float32")):
        path, values = write(tmp_path, f"{rows}-{dtype}.parquet", rows, dtype)
        found = read_vectors(path, room)
        np.testing.assert_array_equal(found.values, values)
        assert found.values.dtype == values.dtype
        assert found.first.tolist() == list(range(rows))
    alone = read_vectors(path)
    room.array(40, 6, np.float32)[:] = 0
    np.testing.assert_array_equal(found.values, 0)
    np.testing.assert_array_equal(alone.values, values)


def test_a_byte_that_changed_is_named_with_the_way_out(tmp_path: Path) -> None:
    path, values = write(tmp_path, "vectors.parquet", 20)
    content = Path(path).read_bytes()
    vector = values[3].tobytes()
    assert content.count(vector) == 1
    Path(path).write_bytes(content.replace(vector, bytes(len(vector))))
    with pytest.raises(
        InputError, match=r"vectors.parquet: no readable embeddings: .*again with --check-bytes"
    ):
        read_vectors(path)
    Path(path).write_bytes(content[:-9])
    with pytest.raises(
        InputError, match=r"vectors.parquet: no readable embeddings: .*again with --check-bytes"
    ):
        read_hashes(path)
