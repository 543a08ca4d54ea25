import numpy as np
import pyarrow as pa
import pytest

from pipeline.tables.input.files import SourceFile
from pipeline.tables.input.shards import FileScan
from pipeline.tables.input.sought import SoughtQueries


@pytest.mark.parametrize(
    ("ids", "kind", "found"),
    [
        (["7", "熊", None], pa.string(), {"7", "熊"}),
        (["7", "熊"], pa.large_string(), {"7", "熊"}),
        ([b"7", "熊".encode(), b"\xff"], pa.binary(), {"7", "熊"}),
        ([7, 8], pa.int32(), {"7"}),
        ([None], pa.null(), set()),
    ],
)
def test_ids_of_every_type_are_known_by_their_text(
    ids: list[object], kind: pa.DataType, found: set[str]
) -> None:
    sought, places = SoughtQueries(["7", "熊", "gone"]), np.arange(len(ids))
    file = SourceFile("f", 1, "", {})
    scan = FileScan(file, pa.array(ids, kind), places, places, places, 9, pa.schema([]))
    assert sought.look(scan) is scan
    assert sought.found == found


def test_passages_stand_in_the_order_of_the_rows() -> None:
    rows = pa.table(
        {"query_id": ["q", "q", "p", "q"], "passage_id": pa.array([b"b", b"a", b"x", b"\xff"], pa.binary())}
    )
    assert SoughtQueries(["q", "r"]).passages(rows) == {"q": ["b", "a", "\ufffd"]}
    assert SoughtQueries().passages(rows) == {}
