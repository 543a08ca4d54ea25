"""Delta, Iceberg and Lance tables read whole: one version, as the table declares it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import lance
import pyarrow as pa
import pytest
from pydantic import ValidationError
from pyiceberg.catalog.memory import InMemoryCatalog
from pyiceberg.table import Table

from pipeline.errors import InputError, NotThereError, TemporaryError
from pipeline.tables import outage, sources
from pipeline.tables.apart import check_apart
from pipeline.tables.config import PairsConfig, TextsConfig
from pipeline.tables.input.columns import TextColumns
from pipeline.tables.input.listing import find_files
from tests.tables.column_mapping import MappedTable
from tests.tables.deletion_vectors import delete_rows

PASSAGES = [{"_id": f"p{n}", "text": f"passage {n}\n熊", "views": n} for n in range(7)]
LATE = [{"_id": "late", "text": "after", "views": 2**40, "source": "web"}]
Change = Callable[[], str]


class _Delta:
    def __init__(self, folder: Path) -> None:
        self.path = f"{folder}/delta"

    def add(self, rows: list[dict[str, Any]]) -> int:
        deltalake.write_deltalake(self.path, pa.Table.from_pylist(rows), mode="append", schema_mode="merge")
        return int(deltalake.DeltaTable(self.path).version())

    def remove(self, where: str) -> None:
        deltalake.DeltaTable(self.path).delete(where)


class _Iceberg:
    def __init__(self, folder: Path) -> None:
        self.path = ""
        self._table: Table | None = None
        self._catalog = InMemoryCatalog("c", warehouse=f"file://{folder}/iceberg")
        self._catalog.create_namespace("n")

    @property
    def table(self) -> Table:
        assert self._table is not None
        return self._table

    def add(self, rows: list[dict[str, Any]]) -> int:
        data = pa.Table.from_pylist(rows)
        if self._table is None:
            self._table = self._catalog.create_table("n.t", data.schema)
        with self.table.update_schema() as update:
            update.union_by_name(data.schema)
        self.table.append(data)
        return self._written()

    def remove(self, where: str) -> None:
        self.table.delete(where)
        self._written()

    def _written(self) -> int:
        self.path, now = self.table.metadata_location, self.table.current_snapshot()
        assert now is not None
        return now.snapshot_id


class _Lance:
    def __init__(self, folder: Path) -> None:
        self.path = f"{folder}/t.lance"

    def add(self, rows: list[dict[str, Any]]) -> int:
        data = pa.Table.from_pylist(rows)
        if Path(self.path).exists():
            table = lance.dataset(self.path)
            known = set(table.schema.names)
            if new := [field for field in data.schema if field.name not in known]:
                table.add_columns(new)
            return int(lance.write_dataset(data, self.path, mode="append").version)
        return int(lance.write_dataset(data, self.path, max_rows_per_file=4).version)

    def remove(self, where: str) -> None:
        lance.dataset(self.path).delete(where)


Lakehouse = _Delta | _Iceberg | _Lance
TABLES: dict[str, Callable[[Path], Lakehouse]] = {"delta": _Delta, "iceberg": _Iceberg, "lance": _Lance}


def scan(path: str, name: str, *kept: str, version: int | None = None) -> sources.Source:
    config = TextsConfig(path=path, format=name, version=version)
    return sources.scan(config, "passages", ["_id", "text"], kept)


def read(source: sources.Source, *columns: str) -> list[dict[str, Any]]:
    return [
        {**row, "row": number}
        for file_range in source.file_ranges
        for rows in sources.read(file_range, source, list(columns))
        for row, number in zip(rows.columns.to_pylist(), rows.numbers.to_pylist(), strict=True)
    ]


@pytest.mark.parametrize("name", TABLES)
def test_one_version_is_read_with_the_columns_that_it_declares(name: str, tmp_path: Path) -> None:
    table = TABLES[name](tmp_path)
    first = table.add(PASSAGES)
    source = scan(table.path, name)
    assert source.described().startswith(
        f"version {first}, {2 if name == 'lance' else 1} files, about 7 rows"
    )
    assert source.size_bytes > 0
    table.add(LATE)
    table.remove("_id = 'p1'")
    now = scan(table.path, name, "source")
    assert now.types["source"] == pa.string()
    kept = {row["_id"]: row for row in read(now, "_id", "text", "views", "source")}
    assert list(kept).count("p1") == 0
    assert kept.keys() == {*(f"p{n}" for n in range(7) if n != 1), "late"}
    assert (kept["late"]["source"], kept["p6"]["source"]) == ("web", None)
    assert (kept["late"]["views"], kept["p6"]["views"]) == (2**40, 6)
    # What was planned before the table changed, and what is asked for by its number, is the old one.
    for old in (source, scan(table.path, name, version=first)):
        was = read(old, "_id", "text")
        assert [(row["_id"], row["text"]) for row in was] == [(row["_id"], row["text"]) for row in PASSAGES]
        rows_of_files = [1, 2, 3, 4, 1, 2, 3] if name == "lance" else [*range(1, 8)]
        assert [row["row"] for row in was] == rows_of_files


@pytest.mark.parametrize("name", TABLES)
def test_what_is_missing_is_named(name: str, tmp_path: Path) -> None:
    table = TABLES[name](tmp_path)
    table.add([{"_id": "a", "body": "b"}])
    with pytest.raises(InputError, match="no column 'text'; it has _id, body"):
        scan(table.path, name)
    path = f"{tmp_path}/none/metadata/1.metadata.json" if name == "iceberg" else f"{tmp_path}/none"
    with pytest.raises(NotThereError, match=r"none.*: not a readable \w+ table"):
        scan(path, name)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_without_rows_is_named(name: str, tmp_path: Path) -> None:
    table = TABLES[name](tmp_path)
    table.add(LATE)
    table.remove("_id = 'late'")
    with pytest.raises(InputError, match="holds no rows"):
        scan(table.path, name)


def test_candidates_have_all_columns_and_partitions_their_types(tmp_path: Path) -> None:
    day = pa.array([20_000, 20_000, None], pa.date32())
    rows = pa.table({"query_id": [1, 1, 2], "passage_id": ["a", "b", "a"], "day": day})
    deltalake.write_deltalake(f"{tmp_path}/t", rows, partition_by=["day"])
    more = pa.table({"query_id": [3], "passage_id": ["c"], "day": day[:1], "grade": [0.5]})
    deltalake.write_deltalake(f"{tmp_path}/t", more, mode="append", schema_mode="merge")
    config = PairsConfig(path=f"{tmp_path}/t", format="delta")
    source = sources.scan(config, "candidates", ["query_id", "passage_id"])
    assert source.types == {
        "query_id": pa.int64(), "passage_id": pa.string(), "day": pa.date32(), "grade": pa.float64(),
    }  # fmt: skip
    found = sorted(read(source, *source.types), key=lambda row: (row["query_id"], row["passage_id"]))
    assert [row["grade"] for row in found] == [None, None, None, 0.5]
    assert [row["day"] for row in found] == [day[0].as_py(), day[0].as_py(), None, day[0].as_py()]


def test_a_column_that_was_renamed_is_the_same_in_older_files(tmp_path: Path) -> None:
    table = _Iceberg(tmp_path)
    table.add(PASSAGES)
    with table.table.update_schema() as update:
        update.rename_column("views", "seen")
    table.add([{"_id": "late", "text": "after", "seen": 1}])
    found = read(scan(table.path, "iceberg", "seen"), "_id", "seen")
    assert {row["_id"]: row["seen"] for row in found} == {
        **{row["_id"]: row["views"] for row in PASSAGES}, "late": 1,
    }  # fmt: skip
    pairs = PairsConfig.model_validate(
        {"path": table.path, "format": "iceberg", "columns": {"query_id": "_id", "passage_id": "text"}}
    )
    source = sources.scan(pairs, "candidates", ["_id", "text"])
    assert sum(row["seen"] for row in read(source, *source.types)) == 22


@pytest.mark.parametrize("mode", ["name", "id"])
def test_mapped_columns_of_delta_and_fields_in_them_have_the_tables_names(tmp_path: Path, mode: str) -> None:
    passages = [{**row, "at": {"place": f"x{n}", "marks": [{"n": n}]}} for n, row in enumerate(PASSAGES)]
    table = MappedTable(tmp_path / "t", pa.Table.from_pylist(passages).schema, mode)
    table.add(passages)
    table.rename("_id", "key")
    table.rename("at.place", "where")
    table.rename("at.marks.n", "number")
    config = TextsConfig(path=str(table.path), format="delta", columns=TextColumns(id="key"))
    found = read(sources.scan(config, "passages", ["key", "text"], ["at"]), "key", "at")
    assert [(row["key"], row["at"]) for row in found] == [
        (row["_id"], {"where": f"x{n}", "marks": [{"number": n}]}) for n, row in enumerate(PASSAGES)
    ]


def test_columns_that_changed_places_make_other_files_of_the_same(tmp_path: Path) -> None:
    table = MappedTable(tmp_path / "t", pa.Table.from_pylist(PASSAGES).schema, "name")
    table.add(PASSAGES)
    before = scan(str(table.path), "delta", "views").files
    table.gain(pa.field("clean", pa.string()))
    assert scan(str(table.path), "delta", "views").files == before
    table.rename("text", "old")
    table.rename("clean", "text")
    after = scan(str(table.path), "delta", "views").files
    assert [file.url for file in after] == [file.url for file in before]
    assert [file.identity for file in after] != [file.identity for file in before]


def test_vectors_are_kept_whatever_kind_of_list_they_are(tmp_path: Path) -> None:
    vectors = pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))
    inside = pa.StructArray.from_arrays([vectors], ["v"])
    rows = pa.table({"_id": ["a", "b"], "text": ["x", "y"], "v": vectors, "s": inside})
    deltalake.write_deltalake(f"{tmp_path}/t", rows)
    found = read(scan(f"{tmp_path}/t", "delta", "v", "s"), "v", "s")
    assert [row["v"] for row in found] == [[1.0, 2.0], None]
    assert [row["s"] for row in found] == [{"v": [1.0, 2.0]}, {"v": None}]


def test_a_blob_column_is_refused_where_it_is_read(tmp_path: Path) -> None:
    blob = pa.field("b", pa.large_binary(), metadata={"lance-encoding:blob": "true"})
    schema = pa.schema([("_id", pa.string()), ("text", pa.string()), blob])
    lance.write_dataset(pa.table([["a"], ["x"], [b"xx"]], schema=schema), f"{tmp_path}/t")
    assert len(read(scan(f"{tmp_path}/t", "lance"), "_id")) == 1
    with pytest.raises(
        InputError, match="column 'b' is a blob column of Lance, .* copy the table without it"
    ):
        scan(f"{tmp_path}/t", "lance", "b")


def test_a_lance_table_is_read_on_where_its_store_was_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr("pipeline.tables.formats.lance.BATCH_ROWS", 2)
    _Lance(tmp_path).add(PASSAGES)
    away = iter([True, False, True, False, False, True, *[False] * 100])

    def flaky(answer: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if next(away):
                raise OSError("error sending request for url (http://store)")
            return answer(*args, **options)

        return call

    real = lance.LanceScanner.to_batches
    monkeypatch.setattr(lance, "dataset", flaky(lance.dataset))
    monkeypatch.setattr(
        lance.LanceScanner, "to_batches", lambda self: map(flaky(lambda batch: batch), real(self))
    )
    outage.wait_out(5)
    found = read(scan(f"{tmp_path}/t.lance", "lance"), "_id")
    outage.wait_out(0)
    assert [row["_id"] for row in found] == [row["_id"] for row in PASSAGES]
    away = iter([False] * 5 + [True] * 100)
    with pytest.raises(TemporaryError, match="error sending request"):
        read(scan(f"{tmp_path}/t.lance", "lance"), "_id")


def test_a_fragment_is_read_in_parts_of_some_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tables.formats.lance.RANGE_BYTES", 1)
    rows = [{"_id": f"p{n}", "text": "x" * 1000} for n in range(40)]
    lance.write_dataset(pa.Table.from_pylist(rows), f"{tmp_path}/t")
    source = scan(f"{tmp_path}/t", "lance")
    assert len(source.file_ranges) == 40
    found = read(source, "_id")
    assert [(row["_id"], row["row"]) for row in found] == [(f"p{n}", n + 1) for n in range(40)]


@pytest.mark.parametrize("range_bytes", [1, 2**20])
def test_deletion_vectors_are_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, range_bytes: int
) -> None:
    monkeypatch.setattr("pipeline.tables.formats.parquet.RANGE_BYTES", range_bytes)
    path, rows = f"{tmp_path}/delta", pa.Table.from_pylist(PASSAGES)
    properties = deltalake.WriterProperties(max_row_group_size=2)
    deltalake.write_deltalake(path, rows, writer_properties=properties)
    before = scan(path, "delta")
    delete_rows(path, [1, 2, 3, 6])
    source = scan(path, "delta")
    assert source.rows == 3
    # The second and the last row group of four hold none.
    assert len(source.file_ranges) == (2 if range_bytes == 1 else 1)
    found = read(source, "_id", "text")
    assert [row["row"] for row in found] == [1, 5, 6]
    of_the_library = pa.table(deltalake.DeltaTable(path).scan().read_all()).to_pylist()
    assert [(row["_id"], row["text"]) for row in found] == [
        (row["_id"], row["text"]) for row in of_the_library
    ]
    assert len(read(before, "_id")) == 7
    assert before.files[0].identity != source.files[0].identity
    delete_rows(path, [*range(7)])
    with pytest.raises(InputError, match="holds no rows"):
        scan(path, "delta")
    deltalake.write_deltalake(path, pa.Table.from_pylist(LATE), mode="append", schema_mode="merge")
    late = scan(path, "delta")
    assert [row["_id"] for row in read(late, "_id")] == ["late"]
    assert list(late.skipped.values()) == ["holds no rows"]


def test_a_data_file_that_is_gone_is_named(tmp_path: Path) -> None:
    table = _Delta(tmp_path)
    table.add(PASSAGES)
    source = scan(table.path, "delta")
    (file,) = Path(table.path).glob("*.parquet")
    file.unlink()
    with pytest.raises(InputError, match=r"\.parquet: changed while the job ran .*now gone"):
        read(source, "_id")
    with pytest.raises(NotThereError, match=r"\.parquet: no such file"):
        scan(table.path, "delta")


def test_one_table_of_passages_and_queries_is_refused(tmp_path: Path) -> None:
    table = _Lance(tmp_path)
    first = table.add(PASSAGES)
    table.add(LATE)
    passages = scan(table.path, "lance")
    config = TextsConfig(path=table.path, format="lance", version=first)
    queries = sources.scan(config, "queries", ["_id", "text"])
    with pytest.raises(InputError, match=r"passages.path and queries.path: both are .*t\.lance: .* or so$"):
        check_apart(passages, queries, " or so")
    with pytest.raises(InputError, match=rf"{table.path}: version 99 can't be read: not a readable Lance"):
        scan(table.path, "lance", version=99)


def test_the_same_table_read_as_plain_files_is_refused_with_the_way_out(tmp_path: Path) -> None:
    table = _Delta(tmp_path)
    table.add(PASSAGES)
    with pytest.raises(
        InputError, match=r"\(Delta\).*--set passages.format=delta --set passages.path=/.*/delta"
    ):
        scan(table.path, "parquet")
    with pytest.raises(InputError, match=r"\(Delta\)"):
        find_files(table.path, (".parquet",), lambda _: False)


@pytest.mark.parametrize("table", [TextsConfig, PairsConfig])
def test_versions_go_with_lakehouses_and_their_whole_tables(table: Any) -> None:
    with pytest.raises(ValidationError, match="version goes with delta, iceberg and lance; jsonl files have"):
        table(path="x", format="jsonl", version=1)
    with pytest.raises(ValidationError, match="success_file goes with files; a version of lance is always"):
        table(path="x", format="lance", success_file="_SUCCESS")


@pytest.mark.parametrize("name", ["delta", "lance"])
def test_on_s3(bucket: str, name: str) -> None:
    store = {"aws_endpoint": os.environ["AWS_ENDPOINT_URL"], "allow_http": "true"}
    rows, path = pa.Table.from_pylist(PASSAGES), f"{bucket}/t"
    if name == "delta":
        deltalake.write_deltalake(path, rows, storage_options={**store, "aws_conditional_put": "etag"})
    else:
        lance.write_dataset(rows, path, storage_options=store)
    assert [row["_id"] for row in read(scan(path, name), "_id")] == [row["_id"] for row in PASSAGES]
