import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.tables.input.deleted_rows import DeletedRows
from pipeline.tables.input.files import SourceFile
from pipeline.tables.input.shards import FileRange, FileScan, Shard, cut_shards

queries_of_files = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=12), min_size=1, max_size=6)


def scan(name: str, ids: Sequence[str | None], pairs: list[int]) -> FileScan:
    """As of a nested table: a row a query."""
    starts = np.arange(len(ids), dtype=np.int64)
    file = SourceFile(name, 1, "identity", {})
    return FileScan(
        file, pa.array(ids, pa.string()), starts, starts + 1, np.array(pairs), len(ids), pa.schema([])
    )


def scans(files: list[list[int]], continued: bool) -> list[FileScan]:
    """A scan a list of pair counts; where `continued`, a file begins with the last one's last query."""
    found, query = [], 0
    for number, pairs in enumerate(files):
        first = query if continued else query + 1
        found.append(scan(f"f{number}", [f"q{first + place}" for place in range(len(pairs))], pairs))
        query = first + len(pairs) - 1
    return found


@settings(deadline=None)
@given(queries_of_files, st.integers(1, 40), st.booleans())
def test_shards_cover_each_file_once_in_order(files: list[list[int]], size: int, continued: bool) -> None:
    found = scans(files, continued)
    shards = list(cut_shards(found, size))
    assert [shard.index for shard in shards] == list(range(len(shards)))
    for number, one in enumerate(found):
        file_ranges = [
            file_range
            for shard in shards
            for file_range in shard.file_ranges
            if file_range.file == f"f{number}"
        ]
        assert file_ranges[0].start == 0
        assert file_ranges[-1].stop == one.stop
        assert all(left.stop == right.start for left, right in itertools.pairwise(file_ranges))
    assert sum(shard.pairs for shard in shards) == sum(map(sum, files))
    distinct = {query for one in found for query in one.query_ids.to_pylist()}
    assert sum(shard.queries for shard in shards) == len(distinct)


@settings(deadline=None)
@given(queries_of_files, st.integers(1, 40), st.booleans())
def test_no_shard_is_too_large_but_for_one_query(files: list[list[int]], size: int, continued: bool) -> None:
    for shard in cut_shards(scans(files, continued), size):
        assert shard.pairs <= size or shard.queries == 1 or continued


@settings(deadline=None)
@given(queries_of_files, st.integers(1, 40))
def test_no_query_is_split(files: list[list[int]], size: int) -> None:
    found = scans(files, continued=True)
    shards = list(cut_shards(found, size))
    for left, right in itertools.pairwise(found):
        holders = [
            shard.index
            for shard in shards
            for file_range in shard.file_ranges
            if (file_range.file == right.file.url and file_range.start == 0)
            or (
                file_range.file == left.file.url
                and file_range.stop == left.stop
                and file_range.start <= left.starts[-1]
            )
        ]
        assert len(set(holders)) == 1


def test_pairs_are_those_of_top_k_and_shards_are_cut_by_what_they_hold() -> None:
    shards = list(cut_shards([scan("f0", ["a", "b", "c"], [4, 1, 3])], 5, top_k=2))
    assert [(shard.queries, shard.candidates, shard.pairs) for shard in shards] == [(2, 5, 3), (1, 3, 2)]


def test_a_query_that_comes_again_is_named() -> None:
    found = [scan("f0", ["a", "b"], [2, 3]), scan("f1", ["c", "a"], [1, 1])]
    with pytest.raises(InputError, match="its rows begin at f0 row 1 and again at f1 row 2. 1 such places"):
        list(cut_shards(found, 100))


@pytest.mark.parametrize(
    ("names_are_theirs", "way_out"),
    [(True, "name them with as many digits each"), (False, "places; sort the table by query id, or have")],
)
def test_files_that_a_lakehouse_names_need_no_other_names(names_are_theirs: bool, way_out: str) -> None:
    found = [scan("part-10", ["a"], [2]), scan("part-11", ["b"], [1]), scan("part-2", ["a"], [2])]
    with pytest.raises(InputError, match=way_out):
        list(cut_shards(found, 100, names_are_theirs=names_are_theirs))


def test_files_without_an_id_belong_to_some_shard() -> None:
    found = [scan("f0", ["a"], [2]), scan("f1", [None], [3]), scan("f2", ["a", "b"], [1, 1])]
    shards = list(cut_shards(found, 100))
    assert [(shard.queries, shard.pairs, len(shard.file_ranges)) for shard in shards] == [(2, 7, 3)]


def test_the_fingerprint_is_of_the_content() -> None:
    one, other = (next(cut_shards([scan("f0", ids, [1] * len(ids))], 9)) for ids in (["a"], ["a", "b"]))
    assert one.fingerprint != other.fingerprint
    assert Shard.model_validate_json(one.model_dump_json()) == one


def test_many_queries_are_planned_at_once() -> None:
    count = 200_000
    ids = [f"q{number}" for number in range(count)]
    shards = list(cut_shards([scan("f", list(ids), [100] * count)], 20_000))
    assert len(shards) == count // 200


def test_deleted_rows_leave_the_fingerprint_to_the_identity() -> None:
    """Shards that were done before files had deleted rows keep theirs."""
    one = FileRange("f", "i", 0, 9, 1, deleted=DeletedRows.at(np.array([2])))
    first, second = (
        Shard(index=0, file_ranges=(each,), queries=1, candidates=1, pairs=1)
        for each in (one, replace(one, identity="j"))
    )
    named = '{"file_ranges":[{"file":"f","identity":"i","start":0,"stop":9,"first_row":1,"partitions":{}}]}'
    assert first.fingerprint == hashlib.sha256(named.encode()).hexdigest()[:16]
    assert second.fingerprint != first.fingerprint
