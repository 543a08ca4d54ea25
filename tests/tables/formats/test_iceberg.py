from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from pipeline.errors import InputError, NotThereError
from pipeline.tables.candidates import read_shard
from pipeline.tables.config import InputConfig
from tests.tables.conftest import TEXTS, Row, check_every_row_once, nested, plan, read_all, rows
from tests.tables.iceberg_tables import in_manifest, in_version_3, puffin, write


@pytest.mark.parametrize("shard_pairs", [1, 4, 1000])
@pytest.mark.parametrize("shape", [rows, lambda: nested(rows())])
def test_every_row_is_read_once_in_order(catalog: SqlCatalog, shape: Any, shard_pairs: int) -> None:
    table = write(catalog, shape())
    for path in (table.metadata_location, "catalog://here/search.candidates"):
        check_every_row_once(path, "iceberg", shard_pairs)


def test_the_snapshot_that_was_planned_is_read(catalog: SqlCatalog) -> None:
    table, path = write(catalog, rows()), "catalog://here/search.candidates"
    planned = plan(path, "iceberg")
    table.overwrite(pa.Table.from_pylist([{**row, "query_id": "new"} for row in rows(queries=1)]))
    config = InputConfig.model_validate({"path": path, "format": "iceberg"})
    candidates, _ = read_shard(planned.shards[0], config, {}, planned)
    assert candidates["query_id"].to_pylist() == [row["query_id"] for row in rows()]
    assert {row["query_id"] for row in read_all(path, "iceberg")[0]} == {"new"}
    first = table.history()[0].snapshot_id
    assert plan(path, "iceberg", version=first).identities() == planned.identities()
    with pytest.raises(InputError, match="not a readable Iceberg table: .*7"):
        plan(path, "iceberg", version=7)


def test_rows_that_were_deleted_are_not_read(catalog: SqlCatalog) -> None:
    table = write(catalog, rows())
    table.delete("query_id = 'q1'")
    good, _ = read_all(table.metadata_location, "iceberg")
    assert {row["query_id"] for row in good} == {"q0", "q2", "q3", "q4"}


def delete_rows(table: Table, deletes: list[Row], **options: Any) -> str:
    """Commits a file of positional deletes, as Spark's merge-on-read does: pyiceberg itself writes none."""
    url = f"{table.location()}/data/delete-{len(table.history())}.parquet"
    pq.write_table(pa.Table.from_pylist(deletes), url.removeprefix("file://"))
    return commit(table, url, **options)


def delete_by_vectors(table: Table, vectors: dict[str, list[int]]) -> str:
    """Commits a file of deletion vectors."""
    url = f"{table.location()}/data/delete-{len(table.history())}.puffin"
    Path(url.removeprefix("file://")).write_bytes(puffin(vectors))
    return commit(table, url, file_format=FileFormat.PUFFIN)


def commit(table: Table, url: str, **options: Any) -> str:
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as snapshot:
        snapshot.append_data_file(delete_file(url, **options))
    return url.removeprefix("file://")


def delete_file(
    url: str,
    content: DataFileContent = DataFileContent.POSITION_DELETES,
    file_format: FileFormat = FileFormat.PARQUET,
) -> DataFile:
    return in_manifest(url, Record(), 0, content=content, file_format=file_format)


def files_of(table: Table) -> list[str]:
    """By the number of rows."""
    tasks = sorted(table.scan().plan_files(), key=lambda task: task.file.record_count)
    return [task.file.file_path for task in tasks]


@pytest.mark.parametrize("shard_pairs", [1, 4, 1000])
def test_positional_deletes_are_applied(catalog: SqlCatalog, shard_pairs: int) -> None:
    table = write(catalog, rows()[:6])
    table.append(pa.Table.from_pylist(rows()[6:]))
    first, second = files_of(table)
    delete_rows(
        table, [*({"file_path": first, "pos": pos} for pos in (0, 4)), {"file_path": second, "pos": 8}]
    )
    delete_rows(table, [{"file_path": second, "pos": pos} for pos in (1, 8)])
    table.append(pa.Table.from_pylist([{**row, "query_id": "late"} for row in rows(queries=1)]))
    good, bad = read_all(table.metadata_location, "iceberg", shard_pairs)
    of_the_library = table.scan().to_arrow().select(TEXTS).to_pylist()
    order = itemgetter("query_id", "passage_id")
    found = sorted(good, key=order)
    assert [{name: row[name] for name in TEXTS} for row in found] == sorted(of_the_library, key=order)
    assert [row["row"] for row in found] == [1, 2, 3, 2, 3, 4, 6, 1, 3, 4, 5, 6, 7, 8]
    assert bad == []


@pytest.mark.parametrize("shard_pairs", [1, 4, 1000])
def test_deletion_vectors_are_applied(catalog: SqlCatalog, shard_pairs: int) -> None:
    """Of version 3, which takes positional deletes of an older table, too."""
    table = write(catalog, rows()[:6])
    table.append(pa.Table.from_pylist(rows()[6:]))
    first, second = files_of(table)
    delete_rows(table, [{"file_path": first, "pos": 4}])
    delete_by_vectors(table, {first: [4], second: [8], "file:///elsewhere": [0, 1]})
    delete_by_vectors(table, {first: [0, 4]})  # and the first one stays in its file
    delete_by_vectors(table, {second: [1, 8]})
    table.append(pa.Table.from_pylist([{**row, "query_id": "late"} for row in rows(queries=1)]))
    good, bad = read_all(in_version_3(table), "iceberg", shard_pairs)
    of_the_library = table.scan().to_arrow().select(TEXTS).to_pylist()
    order = itemgetter("query_id", "passage_id")
    found = sorted(good, key=order)
    assert [{name: row[name] for name in TEXTS} for row in found] == sorted(of_the_library, key=order)
    assert [row["row"] for row in found] == [1, 2, 3, 2, 3, 4, 6, 1, 3, 4, 5, 6, 7, 8]
    assert bad == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", r"delete-1\.puffin: .*magic"),
        (lambda content: content[:-9], r"delete-1\.puffin: .*magic"),
        (lambda content: content.replace(b"\xd1\xd39d", b"\xd1\xd39e"), "a vector is damaged"),
        (lambda content: content[:30] + b"\xff" + content[31:], "a vector is damaged"),
        (
            lambda content: content.replace(b"referenced-data-file", b"another-data-file-12"),
            "referenced-data",
        ),
        (lambda content: b"PFA1", "not a readable file of deletion vectors"),
        (
            lambda content: content.replace(b'"cardinality": "2"', b'"cardinality": "3"'),
            "a vector of 2 rows is told to have 3",
        ),
        (lambda content: puffin({"file:///elsewhere": [2**63 + 1]}), r"names a row at 2\^63 or above"),
        (lambda content: puffin({"file:///elsewhere": [0]}), None),
        (
            lambda content: content.replace(b"deletion-vector-v1", b"apache-sketches-v1"),
            "a delete file without a deletion vector",
        ),
    ],
)
def test_damaged_deletion_vectors_are_named(catalog: SqlCatalog, damage: Any, message: str | None) -> None:
    table = write(catalog, rows())
    path = Path(delete_by_vectors(table, {files_of(table)[0]: [0, 5]}))
    assert len(read_all(in_version_3(table), "iceberg")[0]) == 13
    path.write_bytes(damage(path.read_bytes()))
    if message is None:
        assert len(read_all(in_version_3(table), "iceberg")[0]) == 15
    else:
        with pytest.raises(InputError, match=rf"{message}.*Rewrite the data files"):
            plan(in_version_3(table), "iceberg")


def test_snapshots_differ_by_what_is_deleted_alone(catalog: SqlCatalog) -> None:
    table = write(catalog, rows())
    planned = plan(table.metadata_location, "iceberg")
    delete_rows(table, [{"file_path": files_of(table)[0], "pos": 14}])
    now = plan(table.metadata_location, "iceberg")
    assert now.identities().keys() == planned.identities().keys()
    assert now.identities() != planned.identities()
    config = InputConfig.model_validate({"path": table.metadata_location, "format": "iceberg"})
    assert [read_shard(each.shards[0], config, {}, each)[0].num_rows for each in (planned, now)] == [15, 14]


@pytest.mark.parametrize(
    ("deletes", "message"),
    [
        ({"file_path": "here"}, r"delete-1\.parquet: is no delete file"),
        ({"file_path": "here", "pos": "0"}, r"delete-1\.parquet: is no delete file"),
        ({"file_path": "here", "pos": -1}, r"delete-1\.parquet: .* a negative position.*Rewrite"),
        ({"file_path": "here", "pos": 15}, "row 16 is deleted by its table, but the file has 15 rows"),
        ({"file_path": "elsewhere", "pos": 15}, None),
    ],
)
def test_delete_files_that_cant_be_used_are_named(
    catalog: SqlCatalog, deletes: Row, message: str | None
) -> None:
    table = write(catalog, rows())
    file = files_of(table)[0] if deletes["file_path"] == "here" else "file:///elsewhere"
    path = delete_rows(table, [{**deletes, "file_path": file}])
    if message is None:
        assert len(read_all(table.metadata_location, "iceberg")[0]) == 15
    else:
        with pytest.raises(InputError, match=message):
            plan(table.metadata_location, "iceberg")
    Path(path).unlink()
    with pytest.raises(InputError, match=r"delete-1\.parquet: no such file"):
        plan(table.metadata_location, "iceberg")


@pytest.mark.parametrize(
    ("content", "file_format"),
    [
        (DataFileContent.EQUALITY_DELETES, FileFormat.PARQUET),
        (DataFileContent.POSITION_DELETES, FileFormat.ORC),
    ],
)
def test_other_deletes_are_refused(
    catalog: SqlCatalog, content: DataFileContent, file_format: FileFormat
) -> None:
    table = write(catalog, rows())
    deletes = [{"file_path": files_of(table)[0], "pos": 0}]
    delete_rows(table, deletes, content=content, file_format=file_format)
    message = rf"delete-1\.parquet \({content.name}, {file_format.name}\), which is not read here"
    if content is DataFileContent.EQUALITY_DELETES:
        message = "does not yet support equality deletes"
    with pytest.raises(InputError, match=rf"{message}.*Rewrite the data files"):
        plan(table.metadata_location, "iceberg")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{tmp}/table", "is named by its metadata file"),
        ("{tmp}/nowhere.metadata.json", "not a readable Iceberg table"),
        ("catalog://here/search.nothing", "not a readable Iceberg table: .*search.nothing"),
        ("catalog://unknown/search.nothing", "not a readable Iceberg table: URI missing"),
    ],
)
def test_what_is_no_iceberg_table_is_named(
    catalog: SqlCatalog, tmp_path: Path, path: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        plan(path.format(tmp=tmp_path), "iceberg")
    assert isinstance(error.value, NotThereError) == ("URI" not in message and "metadata file" not in message)


def test_on_s3(bucket: str, tmp_path: Path) -> None:
    file_io = {"py-io-impl": "pyiceberg.io.fsspec.FsspecFileIO"}
    catalog = SqlCatalog("s3", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=bucket, **file_io)
    catalog.create_namespace("search")
    path = write(catalog, rows()).metadata_location
    assert path.startswith("s3://")
    assert len(read_all(path, "iceberg", 4)[0]) == 15
