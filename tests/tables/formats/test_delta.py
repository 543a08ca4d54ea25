import os
import re
from pathlib import Path
from typing import Any

import deltalake
import fsspec
import pyarrow as pa
import pytest

from pipeline.errors import InputError, NotThereError, TemporaryError
from pipeline.tables import outage
from pipeline.tables.candidates import read_shard
from pipeline.tables.config import InputConfig
from tests.tables.column_mapping import MappedTable
from tests.tables.conftest import TEXTS, Row, check_every_row_once, nested, plan, read_all, rows
from tests.tables.deletion_vectors import delete_rows


def write(path: Path | str, table: list[Row] | pa.Table, **options: Any) -> str:
    data = table if isinstance(table, pa.Table) else pa.Table.from_pylist(table)
    deltalake.write_deltalake(str(path), data, **options)
    return str(path)


@pytest.mark.parametrize("shard_pairs", [1, 4, 1000])
@pytest.mark.parametrize("shape", [rows, lambda: nested(rows())])
def test_every_row_is_read_once_in_order(tmp_path: Path, shape: Any, shard_pairs: int) -> None:
    check_every_row_once(write(tmp_path / "t", shape()), "delta", shard_pairs)


def test_the_version_that_was_planned_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "t", rows())
    planned = plan(path, "delta")
    write(path, [{**row, "query_id": f"new {row['query_id']}"} for row in rows()], mode="overwrite")
    config = InputConfig.model_validate({"path": path, "format": "delta"})
    candidates, _ = read_shard(planned.shards[0], config, {}, planned)
    assert candidates["query_id"].to_pylist() == [row["query_id"] for row in rows()]
    assert plan(path, "delta").identities() != planned.identities()
    first = 0
    assert plan(path, "delta", version=first).identities() == planned.identities()
    assert {row["query_id"][:3] for row in read_all(path, "delta")[0]} == {"new"}


def test_queries_that_stand_apart_are_sorted_not_files_renamed(tmp_path: Path) -> None:
    for number in range(4):  # their names are random
        path = write(tmp_path / "t", rows(queries=2 + number % 2), mode="append")
    with pytest.raises(InputError, match="places; sort the table by query id, or have"):
        plan(path, "delta")


def test_partitions_have_the_tables_types(tmp_path: Path) -> None:
    day = pa.array([20_000] * 6 + [None] * 9, pa.date32())
    table = pa.Table.from_pylist(rows()).append_column("day", day)
    table = table.append_column("lang", pa.array(["zh/Hant x"] * 15)).append_column("n", pa.array([7] * 15))
    path = write(tmp_path / "t", table, partition_by=["day", "lang", "n"])
    good, _ = read_all(path, "delta", shard_pairs=4, kept={"day": "day", "lang": "lang", "n": "n"})
    kept = {row["query_id"]: row["kept"] for row in good}
    assert kept["q0"] == {"day": day[0].as_py(), "lang": "zh/Hant x", "n": 7}
    assert kept["q4"]["day"] is None


def test_columns_added_later_are_null_before(tmp_path: Path) -> None:
    path = write(tmp_path / "t", rows(queries=1))
    more = [{**row, "query_id": "q9", "source": "web"} for row in rows(queries=1)]
    write(path, more, mode="append", schema_mode="merge")
    good, _ = read_all(path, "delta", kept={"source": "source"})
    assert {(row["query_id"], row["kept"]["source"]) for row in good} == {("q0", None), ("q9", "web")}
    with pytest.raises(InputError, match="no column 'sauce'"):
        plan(path, "delta", kept={"sauce": "sauce"})


def test_rows_that_were_deleted_are_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "t", rows())
    deltalake.DeltaTable(path).delete("query_id = 'q1'")
    good, _ = read_all(path, "delta")
    assert {row["query_id"] for row in good} == {"q0", "q2", "q3", "q4"}


@pytest.mark.parametrize("shape", [list, nested])
def test_rows_that_the_library_itself_updated_and_deleted(tmp_path: Path, shape: Any) -> None:
    path = write(tmp_path / "t", shape(rows()))
    deltalake.DeltaTable(path).update(updates={"query": "'new'"}, predicate="query_id = 'q1'")
    deltalake.DeltaTable(path).delete("query_id = 'q2'")
    good, bad = read_all(path, "delta", 2)
    assert bad == []
    assert {(row["query_id"], row["query"] == "new") for row in good} == {
        *(("q0", False), ("q1", True), ("q3", False), ("q4", False))
    }
    assert sorted(row["passage"] for row in good) == sorted(
        row["passage"] for row in rows() if row["query_id"] != "q2"
    )


def test_a_table_may_lie_below_a_folder_named_like_its_partition(tmp_path: Path) -> None:
    path = tmp_path / "query_id=q0" / "t"
    path.parent.mkdir()
    check_every_row_once(write(path, rows(), partition_by=["query_id"]), "delta", 4)


@pytest.mark.parametrize("scheme", ["file://", "file:", ""])
def test_a_local_clone_names_files_by_their_whole_places(tmp_path: Path, scheme: str) -> None:
    path = write(tmp_path / "t", rows())
    (file,) = (tmp_path / "t").glob("*.parquet")
    there = file.rename(tmp_path / "elsewhere.parquet")
    log = tmp_path / "t" / "_delta_log" / "00000000000000000000.json"
    log.write_text(log.read_text().replace(f'"path":"{file.name}"', f'"path":"{scheme}{there}"'))
    check_every_row_once(path, "delta", 4)


def test_unknown_mappings_and_features_are_refused(tmp_path: Path) -> None:
    table = MappedTable(tmp_path / "mapped", pa.Table.from_pylist(rows()).schema, "place")
    with pytest.raises(
        InputError, match="mapped: has column mapping by 'place'; Delta's protocol has name and"
    ):
        plan(table.path, "delta")
    path = write(tmp_path / "t", rows())
    log = tmp_path / "t" / "_delta_log" / "00000000000000000000.json"
    text = log.read_text()
    log.write_text(
        re.sub(
            r'"protocol":{[^}]*}',
            '"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["variantType"],'
            '"writerFeatures":["variantType"]}',
            text,
        )
    )
    with pytest.raises(InputError, match=r"reader feature variantType, which is not read here"):
        plan(path, "delta")


def table_of_two_files(path: Path, table: list[Row]) -> str:
    """The first six rows in one file, the others in one that comes later by its name, in small row groups."""
    days = [{**row, "day": "a" if number < 6 else "b"} for number, row in enumerate(table)]
    properties = deltalake.WriterProperties(max_row_group_size=4)
    return write(path, days, partition_by=["day"], writer_properties=properties)


DELETED = ([0, 1, 4], [0, 3, 4, 5, 8])
"""Of 6 and 9 rows: where files, queries and row groups begin and end, and all of q3."""


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("shard_pairs", [1, 2, 4, 1000])
def test_deletion_vectors_are_applied(tmp_path: Path, shard_pairs: int, in_file: bool) -> None:
    path = table_of_two_files(tmp_path / "t ü", rows())
    delete_rows(path, *DELETED, in_file=in_file)
    good, bad = read_all(path, "delta", shard_pairs)
    of_the_library = pa.table(deltalake.DeltaTable(path).scan().read_all()).select(TEXTS).to_pylist()
    assert [{name: row[name] for name in TEXTS} for row in good] == sorted(
        of_the_library, key=lambda row: (row["query_id"], row["passage_id"])
    )
    kept = [[row + 1 for row in range(9 if file else 6) if row not in DELETED[file]] for file in (0, 1)]
    assert [row["row"] for row in good] == [*kept[0], *kept[1]]
    assert bad == []


@pytest.mark.parametrize("shard_pairs", [1, 1000])
def test_deletion_vectors_of_a_nested_table(tmp_path: Path, shard_pairs: int) -> None:
    path = write(tmp_path / "t", nested(rows()))
    delete_rows(path, [0, 3])
    good, _ = read_all(path, "delta", shard_pairs)
    assert [(row["query_id"], row["row"], row["item"]) for row in good] == [
        (f"q{row - 1}", row, item) for row in (2, 3, 5) for item in (1, 2, 3)
    ]


def test_rejects_have_the_rows_of_the_file(tmp_path: Path) -> None:
    table = rows(queries=2)
    table[1]["passage"] = table[4]["passage"] = None
    path = write(tmp_path / "t", table)
    delete_rows(path, [0, 1, 3])
    good, bad = read_all(path, "delta")
    assert [row["row"] for row in good] == [3, 6]
    assert [(row["row"], row["reason"]) for row in bad] == [(5, "null_passage")]


def test_a_file_whose_rows_are_all_deleted_holds_none(tmp_path: Path) -> None:
    path = table_of_two_files(tmp_path / "t", rows())
    delete_rows(path, [*range(6)])
    assert [row["query_id"] for row in read_all(path, "delta")[0]] == ["q2"] * 3 + ["q3"] * 3 + ["q4"] * 3
    (skipped,) = plan(path, "delta").skipped.items()
    assert "/day=a/" in skipped[0]
    assert skipped[1] == "holds no rows"
    delete_rows(path, [*range(6)], [*range(9)])
    with pytest.raises(InputError, match="holds no candidates"):
        plan(path, "delta")


def test_versions_differ_by_what_is_deleted_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "t", rows())
    first = delete_rows(path, [0])
    planned = plan(path, "delta")
    second = delete_rows(path, [1])
    identities = [plan(path, "delta", version=version).identities() for version in (0, first, second)]
    assert [list(each) for each in identities] == [[*planned.identities()]] * 3
    assert len({*(str(each) for each in identities)}) == 3
    assert identities[1] == planned.identities()
    config = InputConfig.model_validate({"path": path, "format": "delta"})
    candidates, _ = read_shard(planned.shards[0], config, {}, planned)
    assert candidates["row"].to_pylist() == [*range(2, 16)]
    (file,) = (tmp_path / "t").glob("*.parquet")
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(InputError, match=r"\.parquet: changed while the job ran"):
        read_shard(planned.shards[0], config, {}, planned)


def test_a_deletion_vector_that_is_gone_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t", rows())
    delete_rows(path, [0], in_file=True)
    (file,) = (tmp_path / "t").glob("deletion_vector_*.bin")
    file.unlink()
    with pytest.raises(InputError, match=f"^{path}: not a readable Delta table: .*{file.name}") as error:
        plan(path, "delta")
    assert "\n" not in str(error.value)


def test_a_deletion_vector_at_which_the_library_panics_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t", rows())
    delete_rows(path, [0])
    log = tmp_path / "t" / "_delta_log" / "00000000000000000001.json"
    log.write_text(re.sub(r'"pathOrInlineDv": "[^"]*"', '"pathOrInlineDv": ""', log.read_text()))
    with pytest.raises(
        InputError, match=r"^.*/t: its deletion vectors can't be read \(.*REORG TABLE"
    ) as error:
        plan(path, "delta")
    assert "\n" not in str(error.value)


def test_a_deletion_vector_of_more_rows_than_the_file_has_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t", rows())
    delete_rows(path, [0, 20])
    with pytest.raises(InputError, match="not a readable Delta table: .*exceeds numRecords 15"):
        plan(path, "delta")
    log = tmp_path / "t" / "_delta_log" / "00000000000000000001.json"
    log.write_text(log.read_text().replace('\\"numRecords\\":15', '\\"numRecords\\":30'))
    with pytest.raises(
        InputError, match=r"\.parquet: row 21 is deleted by its table, but the file has 15 rows"
    ):
        plan(path, "delta")


def test_files_that_were_vacuumed_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t", rows())
    planned = plan(path, "delta")
    (file,) = (tmp_path / "t").glob("*.parquet")
    file.unlink()
    config = InputConfig.model_validate({"path": path, "format": "delta"})
    with pytest.raises(InputError, match=r"\.parquet: changed while the job ran .*now gone"):
        read_shard(planned.shards[0], config, {}, planned)
    with pytest.raises(InputError, match=r"\.parquet: no such file"):
        plan(path, "delta")


def test_a_plan_waits_for_a_store_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, away, opened = write(tmp_path / "t", rows()), [True, True], deltalake.DeltaTable

    def flaky(*args: Any, **options: Any) -> Any:
        if away:
            away.pop()
            raise OSError("error sending request for url (http://store)")
        return opened(*args, **options)

    monkeypatch.setattr(outage, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(deltalake, "DeltaTable", flaky)
    with pytest.raises(TemporaryError, match="error sending request"):
        plan(path, "delta")
    outage.wait_out(5)
    assert plan(path, "delta").shards
    assert not away


def test_what_is_no_delta_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match=r"nowhere: not a readable Delta table"):
        plan(tmp_path / "nowhere", "delta")


def test_on_s3(bucket: str) -> None:
    options = {"aws_endpoint": os.environ["AWS_ENDPOINT_URL"], "allow_http": "true"}
    path = write(f"{bucket}/delta", rows(), storage_options={**options, "aws_conditional_put": "etag"})
    assert len(read_all(path, "delta", 4)[0]) == 15


def test_deletion_vectors_on_s3(bucket: str, tmp_path: Path) -> None:
    path = table_of_two_files(tmp_path / "t", rows())
    delete_rows(path, *DELETED, in_file=True)
    store = fsspec.filesystem("s3")
    store.put(path, f"{bucket}/t", recursive=True)
    here, there = (read_all(each, "delta", 4)[0] for each in (path, f"{bucket}/t"))
    assert [(row["query_id"], row["row"]) for row in there] == [(row["query_id"], row["row"]) for row in here]
