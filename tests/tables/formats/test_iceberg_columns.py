"""Columns of Iceberg tables that changed, and values that files leave to the table's metadata."""

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table
from pyiceberg.typedef import Record
from pyiceberg.types import BinaryType, LongType, StringType, TimeType

from pipeline.errors import InputError
from tests.tables.conftest import TEXTS, nested, plan, read_all, rows
from tests.tables.iceberg_tables import in_manifest, write


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


def test_the_columns_are_those_of_the_snapshot(catalog: SqlCatalog, caplog: pytest.LogCaptureFixture) -> None:
    table = write(catalog, rows())
    planned = plan(table.metadata_location, "iceberg")
    with table.update_schema() as update:
        update.rename_column("passage", "body")
        update.add_column("source", StringType())
    assert "columns were changed" not in caplog.text
    now = plan(table.metadata_location, "iceberg")
    assert "columns were changed since the last write" in caplog.text
    assert "now='query_id, query, passage_id, body, first_score, source'" in caplog.text
    assert (now.schema, now.identities()) == (planned.schema, planned.identities())
    with pytest.raises(InputError, match="no column 'source'; it has query_id, query, passage_id, passage"):
        plan(table.metadata_location, "iceberg", kept={"source": "source"})


def test_columns_renamed_or_replaced_later_are_told_by_their_numbers(catalog: SqlCatalog) -> None:
    table = write(catalog, rows(queries=2))
    with table.update_schema(allow_incompatible_changes=True) as update:
        update.rename_column("passage", "the body")
        update.delete_column("first_score")
    with table.update_schema() as update:
        update.add_column("first_score", StringType())
        update.add_column("passage", StringType())
    late = [{**row, "query_id": "q9", "the body": row["passage"], "first_score": "high"} for row in rows(1)]
    late = [{**row, "passage": "another"} for row in late]
    table.append(pa.Table.from_pylist(late, table.schema().as_arrow()))
    good, bad = read_all(
        table.metadata_location,
        "iceberg",
        shard_pairs=2,
        columns={"passage": "the body"},
        kept={"score": "first_score", "other": "passage"},
    )
    assert bad == []
    assert sorted(row["passage"] for row in good) == sorted(row["passage"] for row in [*rows(2), *rows(1)])
    kept = {row["query_id"]: row["kept"] for row in good}
    assert kept["q0"] == kept["q1"] == {"score": None, "other": None}
    assert kept["q9"] == {"score": "high", "other": "another"}


@pytest.mark.parametrize("name", ["query_id", "query", "passage_id", "passage", "candidates"])
def test_rows_from_before_a_needed_column_are_rejected(catalog: SqlCatalog, name: str) -> None:
    shape = nested if name == "candidates" else list
    whole = pa.Table.from_pylist(shape(rows(queries=2)))
    table = catalog.create_table("search.candidates", whole.schema)
    table.append(whole)
    with table.update_schema(allow_incompatible_changes=True) as update:
        update.delete_column(name)
    with table.update_schema() as update:
        update.union_by_name(whole.schema)
    late = [{**row, "query_id": "q9"} for row in shape(rows(queries=1))]
    table.append(pa.Table.from_pylist(late, table.schema().as_arrow()))
    good, bad = read_all(table.metadata_location, "iceberg", shard_pairs=2)
    assert [row["query_id"] for row in good] == ["q9"] * 3
    assert [row["reason"] for row in bad] == [f"null_{name}"] * (2 if name == "candidates" else 6)


def test_lists_of_candidates_may_be_renamed(catalog: SqlCatalog) -> None:
    table = write(catalog, nested(rows(queries=2)))
    with table.update_schema() as update:
        update.rename_column("candidates", "found")
        update.rename_column("query_id", "qid")
    late = [{**row, "qid": "q9", "found": row["candidates"]} for row in nested(rows(queries=1))]
    table.append(pa.Table.from_pylist(late, table.schema().as_arrow()))
    names = {"candidates": "found", "query_id": "qid"}
    good, _ = read_all(table.metadata_location, "iceberg", shard_pairs=2, columns=names)
    assert {row["query_id"] for row in good} == {"q0", "q1", "q9"}
    assert len(good) == 9


def test_files_that_were_added_to_a_table_are_told_by_its_names(catalog: SqlCatalog, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows(queries=2)), tmp_path / "old.parquet")
    table = catalog.create_table("search.candidates", pa.Table.from_pylist(rows()).schema)
    table.add_files([f"file://{tmp_path}/old.parquet"])
    assert len(read_all(table.metadata_location, "iceberg")[0]) == 6
    with table.update_schema() as update:
        update.rename_column("passage", "body")
        update.add_column("source", StringType())
    late = [{**row, "query_id": "q9", "body": row["passage"], "source": "web"} for row in rows(queries=1)]
    table.append(pa.Table.from_pylist(late, table.schema().as_arrow()))
    options: dict[str, Any] = {"columns": {"passage": "body"}, "kept": {"source": "source"}}
    good, _ = read_all(table.metadata_location, "iceberg", **options)
    assert {(row["query_id"], row["kept"]["source"]) for row in good} == {
        ("q0", None),
        ("q1", None),
        ("q9", "web"),
    }
    assert {row["passage"] for row in good} == {row["passage"] for row in rows(queries=2)}
    with table.transaction() as change:
        change.remove_properties("schema.name-mapping.default")
    with pytest.raises(InputError, match=r"old.parquet: column 'query_id' does not stand in this data file"):
        plan(table.metadata_location, "iceberg", **options)


def migrated(catalog: SqlCatalog, folder: Path, values: list[Any], **columns: pa.DataType) -> Table:
    """A table of one file that Hive wrote: a partition's values stand in the path, and it has no numbers."""
    file = folder / "old.parquet"
    pq.write_table(pa.Table.from_pylist(rows(queries=2)), file)
    schema = pa.Table.from_pylist(rows()).schema
    for name, kind in columns.items():
        schema = schema.append(pa.field(name, kind))
    table = catalog.create_table("search.candidates", schema)
    with table.update_spec() as update:
        for name in columns:
            update.add_identity(name)
    mapping = table.schema().name_mapping.model_dump_json()
    with table.transaction() as change:
        change.set_properties({"schema.name-mapping.default": mapping})
    with table.transaction() as change, change.update_snapshot().fast_append() as snapshot:
        snapshot.append_data_file(in_manifest(f"file://{file}", Record(*values), table.spec().spec_id))
    return table


def test_values_of_partitions_may_stand_in_paths_alone(catalog: SqlCatalog, tmp_path: Path) -> None:
    kinds = {
        "day": pa.date32(),
        "at": pa.timestamp("us", "UTC"),
        "lang": pa.string(),
        "n": pa.int64(),
        "price": pa.decimal128(9, 2),
        "gone": pa.string(),
    }
    table = migrated(
        catalog, tmp_path, [20454, 86_400_000_001, "zh/Hant x", 7, Decimal("1.50"), None], **kinds
    )
    kept = {name: name for name in kinds}
    good, _ = read_all(table.metadata_location, "iceberg", shard_pairs=2, kept=kept)
    assert [row["kept"] for row in good] == [
        {
            "day": date(2026, 1, 1),
            "at": datetime(1970, 1, 2, microsecond=1, tzinfo=UTC),
            "lang": "zh/Hant x",
            "n": 7,
            "price": Decimal("1.50"),
            "gone": None,
        }
    ] * 6
    late = {**rows()[0], "query_id": "q9", **good[0]["kept"], "n": 8}
    table.append(pa.Table.from_pylist([late], table.schema().as_arrow()))
    good, _ = read_all(table.metadata_location, "iceberg", kept=kept)
    assert {(row["query_id"], row["kept"]["n"]) for row in good} == {("q0", 7), ("q1", 7), ("q9", 8)}


def test_files_from_before_a_column_with_a_default_have_that(catalog: SqlCatalog) -> None:
    table = write(catalog, rows(queries=2))
    with table.update_schema() as update:
        update.add_column("source", StringType())
        update.add_column("n", LongType())
    late = [{**row, "query_id": "q9", "source": None, "n": 9} for row in rows(queries=1)]
    table.append(pa.Table.from_pylist(late, table.schema().as_arrow()))
    # Of version 3 of the format, which pyiceberg reads and does not write.
    metadata = json.loads(Path(table.metadata_location.removeprefix("file://")).read_text())
    for field in metadata["schemas"][-1]["fields"]:
        if field["name"] in ("source", "n"):
            field["initial-default"] = "web" if field["name"] == "source" else 7
    path = Path(table.location().removeprefix("file://"), "metadata", "9.metadata.json")
    path.write_text(json.dumps(metadata | {"format-version": 3, "next-row-id": 0}))
    good, _ = read_all(path, "iceberg", kept={"source": "source", "n": "n"})
    kept = {row["query_id"]: row["kept"] for row in good}
    assert kept == {
        "q0": {"source": "web", "n": 7},
        "q1": {"source": "web", "n": 7},
        "q9": {"source": None, "n": 9},
    }


def test_a_partitions_value_that_is_no_text_is_refused_where_a_file_lacks_it(
    catalog: SqlCatalog, tmp_path: Path
) -> None:
    table = migrated(catalog, tmp_path, [b"ab"], key=pa.binary())
    assert len(read_all(table.metadata_location, "iceberg")[0]) == 6
    with pytest.raises(InputError, match=r"old.parquet: column 'key' does not stand in this data file"):
        plan(table.metadata_location, "iceberg", kept={"key": "key"})


@pytest.mark.parametrize(("kind", "value"), [(BinaryType(), b"x"), (TimeType(), time(1, 2, 3))])
def test_a_column_that_parts_later_files_alone_is_null_before(
    catalog: SqlCatalog, kind: Any, value: Any
) -> None:
    table = write(catalog, rows())
    with table.update_schema() as update:
        update.add_column("key", kind)
    with table.update_spec() as spec:
        spec.add_identity("key")
    new = {**rows()[0], "query_id": "q9", "key": value}
    table.append(pa.Table.from_pylist([new], table.schema().as_arrow()))
    good, _ = read_all(table.metadata_location, "iceberg", kept={"key": "key"})
    assert [row["kept"]["key"] for row in good] == [None] * len(rows()) + [value]


def test_fields_added_later_in_a_column_are_null_before(catalog: SqlCatalog) -> None:
    texts = pa.schema([(name, pa.string()) for name in TEXTS])
    inside = pa.struct([("x", pa.int64())])
    kinds = {"s": inside, "l": pa.list_(inside), "m": pa.map_(pa.string(), inside)}
    table = catalog.create_table("search.candidates", pa.schema([*texts, *kinds.items()]))
    row = {name: rows()[0][name] for name in TEXTS}
    old = row | {"s": {"x": 1}, "l": [{"x": 2}, None], "m": [("a", {"x": 3})]}
    none = row | {"query_id": "q8", "s": None, "l": [], "m": []}
    table.append(pa.Table.from_pylist([old, none], table.schema().as_arrow()))
    for place in ("s", "l.element", "m.value"):
        with table.update_schema() as update:
            update.rename_column(f"{place}.x", "y")
        with table.update_schema() as update:
            update.add_column((*place.split("."), "x"), StringType())
    new = row | {"query_id": "q9"} | {"s": {"y": 4, "x": "n"}, "l": [{"y": 5, "x": "n"}], "m": []}
    table.append(pa.Table.from_pylist([new], table.schema().as_arrow()))
    good, _ = read_all(table.metadata_location, "iceberg", kept={name: name for name in kinds})
    found = {row["query_id"]: row["kept"] for row in good}
    assert found == {
        "q0": {"s": {"y": 1, "x": None}, "l": [{"y": 2, "x": None}, None], "m": [("a", {"y": 3, "x": None})]},
        "q8": {"s": None, "l": [], "m": []},
        "q9": {"s": {"y": 4, "x": "n"}, "l": [{"y": 5, "x": "n"}], "m": []},
    }
    # A default of a field in a column is none that is known here.
    metadata = json.loads(Path(table.metadata_location.removeprefix("file://")).read_text())
    struct = next(each["type"] for each in metadata["schemas"][-1]["fields"] if each["name"] == "s")
    next(each for each in struct["fields"] if each["name"] == "x")["initial-default"] = "web"
    path = Path(table.location().removeprefix("file://"), "metadata", "9.metadata.json")
    path.write_text(json.dumps(metadata | {"format-version": 3, "next-row-id": 0}))
    assert len(read_all(path, "iceberg", kept={"l": "l"})[0]) == 3
    with pytest.raises(InputError, match="column 's' does not stand in this data file"):
        plan(path, "iceberg", kept={"s": "s"})


def test_a_field_renamed_in_a_map_is_the_same_in_older_files(catalog: SqlCatalog) -> None:
    texts = pa.schema([(name, pa.string()) for name in TEXTS])
    of_map = pa.map_(pa.string(), pa.struct([("x", pa.int64())]))
    table = catalog.create_table("search.candidates", texts.append(pa.field("m", of_map)))
    row = {name: rows()[0][name] for name in TEXTS} | {"m": [("a", {"x": 1})]}
    table.append(pa.Table.from_pylist([row], table.schema().as_arrow()))
    assert read_all(table.metadata_location, "iceberg", kept={"m": "m"})[0][0]["kept"]["m"] == row["m"]
    with table.update_schema() as update:
        update.rename_column("m.value.x", "y")
    table.append(
        pa.Table.from_pylist([row | {"query_id": "q9", "m": [("a", {"y": 2})]}], table.schema().as_arrow())
    )
    good, _ = read_all(table.metadata_location, "iceberg", kept={"m": "m"})
    assert sorted(row["kept"]["m"][0][1]["y"] for row in good) == [1, 2]
