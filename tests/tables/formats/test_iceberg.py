from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import FileScanTask, Table
from pyiceberg.types import LongType, StringType
from pyiceberg.utils.config import Config

from pipeline.errors import InputError, NotThereError
from pipeline.tables.candidates import read_shard
from pipeline.tables.config import InputConfig
from pipeline.tables.formats.iceberg import check_readable
from tests.tables.conftest import TEXTS, Row, check_every_row_once, nested, plan, read_all, rows


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqlCatalog:
    """One that `catalog://here/` finds in the environment, as users configure theirs."""
    monkeypatch.setenv("PYICEBERG_CATALOG__HERE__TYPE", "sql")
    monkeypatch.setenv("PYICEBERG_CATALOG__HERE__URI", f"sqlite:///{tmp_path}/catalog.db")
    monkeypatch.setenv("PYICEBERG_CATALOG__HERE__WAREHOUSE", f"file://{tmp_path}/warehouse")
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())  # as a process that starts now reads it
    found = load_catalog("here")
    assert isinstance(found, SqlCatalog)
    found.create_namespace("search")
    return found


def write(catalog: SqlCatalog, table: list[Row]) -> Table:
    data = pa.Table.from_pylist(table)
    written = catalog.create_table("search.candidates", data.schema)
    written.append(data)
    return written


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


def test_columns_added_or_widened_later(catalog: SqlCatalog) -> None:
    table = catalog.create_table(
        "search.candidates",
        pa.schema([*((name, pa.string()) for name in TEXTS), ("n", pa.int32())]),
    )
    texts = [{name: row[name] for name in TEXTS} for row in rows(queries=2)]
    table.append(pa.Table.from_pylist([{**row, "n": 7} for row in texts[:3]], table.schema().as_arrow()))
    with table.update_schema() as update:
        update.add_column("source", StringType())
        update.update_column("n", LongType())
    late = [{**row, "n": 2**40, "source": "web"} for row in texts[3:]]
    table.append(pa.Table.from_pylist(late, table.schema().as_arrow()))
    good, _ = read_all(table.metadata_location, "iceberg", kept={"n": "n", "source": "source"})
    kept = {row["query_id"]: row["kept"] for row in good}
    assert kept == {"q0": {"n": 7, "source": None}, "q1": {"n": 2**40, "source": "web"}}
    with pytest.raises(InputError, match="no column 'sauce'"):
        plan(table.metadata_location, "iceberg", kept={"sauce": "sauce"})


def test_the_columns_are_those_of_the_snapshot(catalog: SqlCatalog) -> None:
    table = write(catalog, rows())
    planned = plan(table.metadata_location, "iceberg")
    with table.update_schema() as update:
        update.rename_column("passage", "body")
        update.add_column("source", StringType())
    now = plan(table.metadata_location, "iceberg")
    assert (now.schema, now.identities()) == (planned.schema, planned.identities())
    with pytest.raises(InputError, match="no column 'source'; it has query_id, query, passage_id, passage"):
        plan(table.metadata_location, "iceberg", kept={"source": "source"})


def test_columns_renamed_or_replaced_later_are_refused(catalog: SqlCatalog) -> None:
    table = write(catalog, rows())
    with table.update_schema(allow_incompatible_changes=True) as update:
        update.rename_column("passage", "body")
        update.delete_column("first_score")
    with table.update_schema() as update:
        update.add_column("first_score", StringType())
    late = [{**row, "body": row["passage"], "first_score": "high"} for row in rows(queries=1)]
    table.append(pa.Table.from_pylist(late, table.schema().as_arrow()))
    with pytest.raises(
        InputError, match=r"\.parquet: column 'body' does not stand in this data file.*Rewrite"
    ):
        plan(table.metadata_location, "iceberg", columns={"passage": "body"})
    with pytest.raises(InputError, match="column 'first_score' does not stand"):
        plan(
            table.metadata_location,
            "iceberg",
            columns={"query": "query_id", "passage": "query"},
            kept={"s": "first_score"},
        )


def test_a_field_renamed_in_a_map_is_refused(catalog: SqlCatalog) -> None:
    texts = pa.schema([(name, pa.string()) for name in TEXTS])
    of_map = pa.map_(pa.string(), pa.struct([("x", pa.int64())]))
    table = catalog.create_table("search.candidates", texts.append(pa.field("m", of_map)))
    row = {name: rows()[0][name] for name in TEXTS} | {"m": [("a", {"x": 1})]}
    table.append(pa.Table.from_pylist([row], table.schema().as_arrow()))
    assert read_all(table.metadata_location, "iceberg", kept={"m": "m"})[0][0]["kept"]["m"] == row["m"]
    with table.update_schema() as update:
        update.rename_column("m.value.x", "y")
    table.append(pa.Table.from_pylist([row | {"m": [("a", {"y": 2})]}], table.schema().as_arrow()))
    with pytest.raises(InputError, match="column 'm' does not stand in this data file"):
        plan(table.metadata_location, "iceberg", kept={"m": "m"})


def test_rows_that_were_deleted_are_not_read(catalog: SqlCatalog) -> None:
    table = write(catalog, rows())
    table.delete("query_id = 'q1'")
    good, _ = read_all(table.metadata_location, "iceberg")
    assert {row["query_id"] for row in good} == {"q0", "q2", "q3", "q4"}


def test_deletes_that_are_not_merged_are_refused(catalog: SqlCatalog) -> None:
    # pyiceberg writes none; Spark and Flink do.
    (task,) = write(catalog, rows()).scan().plan_files()
    assert isinstance(task, FileScanTask)
    check_readable("table", task)
    with pytest.raises(InputError, match="are deleted by delete files.*Rewrite"):
        check_readable("table", FileScanTask(task.file, {task.file}))


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
