"""A table that the tests of the job rerank."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import golden_cases


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """The golden pairs as a flat table: four candidates a query, two files, an extra column."""
    pairs = golden_cases("tiny-bge-reranker")[0].pairs
    rows = [
        {
            "query_id": number // 4,
            "query": query,
            "passage_id": f"p{number:02}",
            "passage": passage,
            "n": number,
        }
        for number, (query, passage) in enumerate(pairs)
    ]
    (tmp_path / "in").mkdir()
    for part, start in enumerate((0, 16)):
        pq.write_table(pa.Table.from_pylist(rows[start : start + 16]), tmp_path / f"in/part-{part}.parquet")
    return tmp_path / "in"
