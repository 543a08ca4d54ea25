import numpy as np
import pyarrow as pa
import pytest

from pipeline.tables.input.files import SourceFile
from pipeline.tables.input.shards import FileRange, FileScan, Shard
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


def test_the_shards_that_hold_a_query_are_known() -> None:
    """Of two files, whose queries are two rows each; the last shard has rows of both."""
    sought = SoughtQueries(["b", "d"])
    starts = np.array([0, 2])
    for name, ids in {"one": ["a", "b"], "two": ["c", "d"]}.items():
        file = SourceFile(name, 1, "", {})
        sought.look(FileScan(file, pa.array(ids), starts, starts, np.array([2, 2]), 4, pa.schema([])))
    ranges = [("one", 0, 2), ("one", 2, 4), ("two", 0, 2), ("two", 2, 4)]
    cuts = [FileRange(file, "", start, stop, 1) for file, start, stop in ranges]

    def shard(index: int, *cuts: FileRange) -> Shard:
        return Shard(index=index, file_ranges=cuts, queries=1, candidates=2, pairs=2)

    single = [shard(index, cut) for index, cut in enumerate(cuts)]
    assert sought.shards(single) == (1, 3)
    assert sought.shards([shard(0, cuts[0]), shard(1, cuts[1], cuts[2])]) == (1,)
    assert SoughtQueries().shards(single) == ()


def test_passages_stand_in_the_order_of_the_rows() -> None:
    rows = pa.table(
        {"query_id": ["q", "q", "p", "q"], "passage_id": pa.array([b"b", b"a", b"x", b"\xff"], pa.binary())}
    )
    assert SoughtQueries(["q", "r"]).passages(rows) == {"q": ["b", "a", "\ufffd"]}
    assert SoughtQueries().passages(rows) == {}
