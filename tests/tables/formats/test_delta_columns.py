"""Columns of Delta tables that changed, and that data files tell in their own way."""

from operator import itemgetter
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from tests.tables.column_mapping import MappedTable
from tests.tables.conftest import TEXTS, Row, check_every_row_once, nested, plan, read_all, rows
from tests.tables.deletion_vectors import delete_rows
from tests.tables.formats.test_delta import write


@pytest.mark.parametrize("shard_pairs", [1, 2, 1000])
def test_fields_added_later_in_a_column_are_null_before(tmp_path: Path, shard_pairs: int) -> None:
    def at(number: int, **more: Any) -> Row:
        return {"n": number, "marks": [{"m": number, **more}, None] if number % 3 else None, **more}

    path = write(tmp_path / "t", [{**row, "at": at(n) if n % 4 else None} for n, row in enumerate(rows())])
    late = [{**row, "query_id": "q9", "at": at(n, z="x")} for n, row in enumerate(rows(queries=1))]
    write(path, late, mode="append", schema_mode="merge")
    good, bad = read_all(path, "delta", shard_pairs, kept={"at": "at"})
    of_the_library = pa.table(deltalake.DeltaTable(path).scan().read_all()).to_pylist()
    order = itemgetter("query_id", "passage_id")
    assert [row["kept"]["at"] for row in sorted(good, key=order)] == [
        row["at"] for row in sorted(of_the_library, key=order)
    ]
    assert (len(good), bad) == (18, [])


@pytest.mark.parametrize("shard_pairs", [1, 2, 1000])
def test_fields_of_candidates_added_later_are_null_before(tmp_path: Path, shard_pairs: int) -> None:
    table = nested([{name: row[name] for name in (*TEXTS, "first_score")} for row in rows(queries=2)])
    old = [
        {**row, "candidates": [{"passage_id": each["passage_id"]} for each in row["candidates"]]}
        for row in nested(rows(queries=1))
    ]
    path = write(tmp_path / "t", [{**row, "query_id": "old"} for row in old])
    write(path, table, mode="append", schema_mode="merge")
    good, bad = read_all(path, "delta", shard_pairs, kept={"first": "first_score"})
    assert {row["query_id"] for row in good} == {"q0", "q1"}
    assert good[1]["kept"] == {"first": 1.0}
    assert [(row["query_id"], row["reason"]) for row in bad] == [("old", "null_passage")] * 3


def test_columns_that_changed_places_make_other_files_of_the_same(tmp_path: Path) -> None:
    shape = pa.Table.from_pylist([{**row, "title": "x"} for row in rows()]).schema
    table = MappedTable(tmp_path / "t", shape, "name")
    table.add([{**row, "title": "x"} for row in rows()])
    before = plan(table.path, "delta")
    table.gain(pa.field("unread", pa.int64()))
    table.rename("first_score", "unread too")
    assert plan(table.path, "delta").identities() == before.identities()
    table.rename("passage", "old")
    table.rename("title", "passage")
    after = plan(table.path, "delta")
    assert after.identities().keys() == before.identities().keys()
    assert after.identities() != before.identities()
    assert after.shards[0].fingerprint != before.shards[0].fingerprint
    assert [row["passage"] for row in read_all(table.path, "delta")[0]] == ["x"] * 15


@pytest.mark.parametrize("mode", ["name", "id"])
@pytest.mark.parametrize("shard_pairs", [1, 4, 1000])
@pytest.mark.parametrize("shape", [list, nested])
def test_mapped_columns_are_told_as_the_table_tells_them(
    tmp_path: Path, shape: Any, shard_pairs: int, mode: str
) -> None:
    table = MappedTable(tmp_path / "t", pa.Table.from_pylist(shape(rows())).schema, mode)
    table.add(shape(rows()))
    check_every_row_once(str(table.path), "delta", shard_pairs)


@pytest.mark.parametrize("mode", ["name", "id"])
def test_mapped_columns_may_be_renamed_dropped_and_added(tmp_path: Path, mode: str) -> None:
    shape = pa.Table.from_pylist([{**row, "day": "a", "old": "x"} for row in rows()]).schema
    table = MappedTable(tmp_path / "t", shape, mode, partition_by="day")
    table.add([{**row, "day": "a", "old": "x"} for row in rows(queries=2)])
    table.rename("passage", "the body, as it is")
    table.rename("day", "date")
    table.drop("old")
    table.gain(pa.field("old", pa.int64()))
    late = [{**row, "query_id": "q9", "the body, as it is": row["passage"]} for row in rows(queries=1)]
    table.add([{**row, "date": "b", "old": 7} for row in late])
    delete_rows(str(table.path), [0], [2])
    good, bad = read_all(
        table.path, "delta", 2, columns={"passage": "the body, as it is"}, kept={"old": "old", "date": "date"}
    )
    assert bad == []
    assert {(row["query_id"], row["kept"]["date"], row["kept"]["old"]) for row in good} == {
        ("q0", "a", None),
        ("q1", "a", None),
        ("q9", "b", 7),
    }
    of_the_library = pa.table(deltalake.DeltaTable(table.path).scan().read_all()).to_pylist()
    assert sorted(row["passage"] for row in good) == sorted(
        row["the body, as it is"] for row in of_the_library
    )
    assert len(good) == 7


@pytest.mark.parametrize("mode", ["name", "id"])
def test_fields_in_mapped_columns_may_be_renamed_and_dropped(tmp_path: Path, mode: str) -> None:
    table = MappedTable(tmp_path / "t", pa.Table.from_pylist(nested(rows())).schema, mode)
    table.add(nested(rows(queries=2)))
    table.rename("candidates.passage", "body")
    table.drop("candidates.first_score")
    options: dict[str, Any] = {"columns": {"passage": "body"}, "kept": {"all": "candidates"}}
    good, bad = read_all(table.path, "delta", 2, **options)
    assert ([row["passage"] for row in good], bad) == ([row["passage"] for row in rows(queries=2)], [])
    assert good[0]["kept"]["all"][1] == {"passage_id": "p1", "body": rows()[1]["passage"]}
    # A physical name that was a logical one: the field was dropped, and another took its name.
    table.rename("candidates.body", "col-003")
    table.rename("candidates.passage_id", "col-005")
    names = {"passage": "col-003", "passage_id": "col-005"}
    good, _ = read_all(table.path, "delta", 2, columns=names)
    assert [row["passage"] for row in good] == [row["passage"] for row in rows(queries=2)]


def test_data_files_without_numbers_are_refused_where_columns_are_told_by_them(tmp_path: Path) -> None:
    table = MappedTable(tmp_path / "t", pa.Table.from_pylist(rows()).schema, "id")
    table.add(rows())
    (file,) = table.path.glob("*.parquet")
    held = pq.read_table(file)
    pq.write_table(pa.table({name: held[name] for name in held.column_names}), file)
    with pytest.raises(InputError, match="part-1.parquet: column 'query_id' does not stand in this data fil"):
        plan(table.path, "delta")
