import base64
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.tables.input.arrow_types import with_fields
from tests.tables.conftest import check_every_row_once, nested, plan, read_all, rows, write_parquet


def write(path: Path, **columns: pa.Array) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def texts(count: int) -> pa.Array:
    return pa.array([f"text {index}" for index in range(count)])


@pytest.mark.parametrize(
    ("ids", "read_as"),
    [
        (pa.array([3, 3, 1], pa.int32()), pa.int32()),
        (pa.array([3, 3, 1], pa.uint64()), pa.uint64()),
        (pa.array([b"\xff", b"\xff", b"a"]), pa.binary()),
        (pa.array(["x", "x", "y"], pa.large_string()), pa.string()),
        (pa.array(["x", "x", "y"]).dictionary_encode(), pa.string()),
    ],
)
def test_ids_stay_what_they_are(tmp_path: Path, ids: pa.Array, read_as: pa.DataType) -> None:
    path = write(tmp_path / "t.parquet", query_id=ids, query=texts(3), passage_id=texts(3), passage=texts(3))
    planned = plan(path, "parquet", shard_pairs=2)
    assert planned.schema.field("query_id").type == read_as
    assert [shard.pairs for shard in planned.shards] == [2, 1]
    good, bad = read_all(path, "parquet", shard_pairs=2)
    assert [row["query_id"] for row in good] == ids.to_pylist()
    assert bad == []


def test_a_type_that_arrow_lacks_is_told_by_file(tmp_path: Path) -> None:
    names = ("query_id", "query", "passage_id", "passage")
    wide = pl.DataFrame({name: ["a"] for name in names} | {"wide": pl.Series([1], dtype=pl.Int128)})
    wide.write_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"t\.parquet: not a readable Parquet file .*more than 64 bits"):
        plan(tmp_path / "t.parquet", "parquet")


def test_wrong_types_are_named(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.parquet", query_id=texts(1), query=pa.array([1]), passage_id=texts(1), passage=texts(1)
    )
    with pytest.raises(InputError, match=r"t.parquet: column 'query' is int64, a text is needed"):
        plan(path, "parquet")
    path = write(
        tmp_path / "t.parquet",
        query_id=pa.array([1.5]),
        query=texts(1),
        passage_id=texts(1),
        passage=texts(1),
    )
    with pytest.raises(InputError, match="column 'query_id' is double; ids are text, integers or binary"):
        plan(path, "parquet")


def test_a_corrupt_file_is_named(tmp_path: Path) -> None:
    for part in range(3):
        write_parquet(
            tmp_path / f"part-{part}", [{**row, "query_id": f"{part}{row['query_id']}"} for row in rows()]
        )
    broken = tmp_path / "part-1.parquet"
    broken.write_bytes(broken.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"part-1.parquet: not a readable Parquet file"):
        plan(tmp_path, "parquet")


def test_broken_bytes_in_the_middle_are_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t", rows(queries=50, candidates=20))
    data = bytearray(path.read_bytes())
    data[4:2000] = b"\xff" * 1996
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"t.parquet: .*not a readable Parquet file"):
        read_all(path, "parquet")


def test_invalid_utf8_is_rejected_and_the_rest_goes_on(tmp_path: Path) -> None:
    raw = pa.array([b"fine", b"bro\xffken", b"good"])
    broken = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    ids = pa.array(["a", "b", "c"])
    path = write(tmp_path / "t.parquet", query_id=ids, query=texts(3), passage_id=ids, passage=broken)
    good, bad = read_all(path, "parquet")
    assert [row["passage"] for row in good] == ["fine", "good"]
    assert [(row["row"], row["passage_id"], row["reason"]) for row in bad] == [(2, "b", "invalid_text")]
    assert bad[0]["field"] == "passage"
    path = write(tmp_path / "t.parquet", query_id=ids, query=texts(3), passage_id=broken, passage=texts(3))
    good, bad = read_all(path, "parquet")
    assert len(good) == 2
    assert [(row["row"], row["passage_id"], row["reason"]) for row in bad] == [(2, None, "invalid_text")]
    assert bad[0]["field"] == "passage_id"


def test_nested_rows_without_candidates(tmp_path: Path) -> None:
    table = nested(rows(queries=4))
    table[1]["candidates"] = None
    table[2]["candidates"] = []
    table[3]["candidates"][1] = None
    good, bad = read_all(write_parquet(tmp_path / "t", table), "parquet", shard_pairs=2)
    assert [(row["query_id"], row["passage_id"]) for row in good] == [
        ("q0", "p0"), ("q0", "p1"), ("q0", "p2"), ("q3", "p0"), ("q3", "p2"),
    ]  # fmt: skip
    assert [(row["row"], row["item"], row["reason"]) for row in bad] == [
        (2, None, "null_candidates"),
        (4, 2, "null_passage_id"),
    ]


def test_nested_tables_count_candidates_without_reading_texts(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t", nested(rows(queries=6, candidates=5)))
    assert [shard.pairs for shard in plan(path, "parquet", shard_pairs=10).shards] == [10, 10, 10]


def test_a_shard_reads_across_row_groups(tmp_path: Path) -> None:
    table = rows(queries=40, candidates=5)
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_pylist(table), path, row_group_size=7)
    good, _ = read_all(path, "parquet", shard_pairs=33)
    assert [(row["query_id"], row["passage_id"]) for row in good] == [
        (r["query_id"], r["passage_id"]) for r in table
    ]
    assert [row["row"] for row in good] == list(range(1, 201))


def test_query_ids_that_are_no_text_are_rejected(tmp_path: Path) -> None:
    raw = pa.array([b"q", b"\xff", b"q"])
    ids = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    path = write(tmp_path / "t.parquet", query_id=ids, query=texts(3), passage_id=texts(3), passage=texts(3))
    good, bad = read_all(path, "parquet", shard_pairs=1)
    assert [row["row"] for row in good] == [1, 3]
    assert [(row["row"], row["query_id"], row["reason"]) for row in bad] == [(2, None, "invalid_text")]


def test_the_querys_own_columns_are_the_rows_not_the_candidates(tmp_path: Path) -> None:
    table = nested(rows(queries=2))
    for row in table:
        for candidate in row["candidates"]:
            candidate["query_id"] = 7
    good, _ = read_all(write_parquet(tmp_path / "t", table), "parquet")
    assert {row["query_id"] for row in good} == {"q0", "q1"}


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list, pa.list_view, pa.large_list_view])
def test_candidates_in_a_list_of_any_kind(tmp_path: Path, kind: object) -> None:
    assert callable(kind)
    check_lists(tmp_path, kind, [2, None, 2, 0, 1])


def test_candidates_in_a_list_of_one_size(tmp_path: Path) -> None:
    check_lists(tmp_path, lambda struct: pa.list_(struct, 2), [2, None, 2])


def check_lists(path: Path, kind: Callable[[pa.DataType], pa.DataType], sizes: list[int | None]) -> None:
    struct = pa.struct([("passage_id", pa.string()), ("passage", pa.string())])
    lists = [
        None
        if size is None
        else [{"passage_id": f"p{at}{n}", "passage": f"text {at} {n}"} for n in range(size)]
        for at, size in enumerate(sizes)
    ]
    ids = [f"q{at}" for at in range(len(sizes))]
    table = write(path / "t.parquet", query_id=ids, query=ids, candidates=pa.array(lists, kind(struct)))
    good, bad = read_all(table, "parquet", shard_pairs=1)
    expected = [(f"q{at}", each["passage"]) for at, each_list in enumerate(lists) for each in each_list or []]
    assert [(row["query_id"], row["passage"]) for row in good] == expected
    assert [(row["query_id"], row["reason"]) for row in bad] == [("q1", "null_candidates")]


def test_bytes_that_are_no_text_in_columns_to_keep_are_rejected(tmp_path: Path) -> None:
    bad_text = pa.array([b"fine", b"\xff"]).cast(pa.string(), safe=False)
    lists = pa.ListArray.from_arrays([0, 1, 2], pa.array([b"fine", b"\xff"]).cast(pa.string(), safe=False))
    for name, column in {"text": bad_text, "list": lists}.items():
        path = write(
            tmp_path / f"{name}.parquet",
            query_id=texts(2), query=texts(2), passage_id=texts(2), passage=texts(2), more=column,
        )  # fmt: skip
        good, bad = read_all(path, "parquet", kept={"kept": "more"})
        assert [row["row"] for row in good] == [1]
        assert [(row["row"], row["reason"], row["field"]) for row in bad] == [(2, "invalid_text", "kept")]


def write_views(table: pa.Table, path: Path) -> None:
    """As DataFusion and delta-rs do, whose texts are views: pyarrow writes none in row groups."""
    views = pa.schema([field.with_type(as_views(field.type)) for field in table.schema])
    with pq.ParquetWriter(path, table.schema, store_schema=False) as writer:
        writer.write_table(table, row_group_size=2)
        writer.add_key_value_metadata({"ARROW:schema": base64.b64encode(views.serialize().to_pybytes())})


def as_views(kind: pa.DataType) -> pa.DataType:
    return (
        pa.string_view()
        if kind == pa.string()
        else with_fields(kind, lambda each: each.with_type(as_views(each.type)))
    )


@pytest.mark.parametrize("shard_pairs", [1, 4, 1000])
@pytest.mark.parametrize("shape", [list, nested])
def test_texts_that_were_written_as_views(tmp_path: Path, shape: Any, shard_pairs: int) -> None:
    write_views(pa.Table.from_pylist(shape(rows())), tmp_path / "t.parquet")
    assert pq.read_schema(tmp_path / "t.parquet").field("query").type == pa.string_view()
    check_every_row_once(str(tmp_path / "t.parquet"), "parquet", shard_pairs)


def test_dictionaries_in_lists_and_structs_of_several_row_groups(tmp_path: Path) -> None:
    texts = pa.dictionary(pa.int32(), pa.string())
    kinds = pa.schema(
        [
            ("query_id", pa.string()),
            ("query", pa.string()),
            ("candidates", pa.list_(pa.struct([("passage_id", texts), ("passage", texts)]))),
            ("more", pa.struct([("lang", texts)])),
        ]
    )
    table = [{**row, "more": {"lang": row["query_id"]}} for row in nested(rows())]
    pq.write_table(pa.Table.from_pylist(table, kinds), tmp_path / "t.parquet", row_group_size=2)
    good, bad = read_all(tmp_path / "t.parquet", "parquet", kept={"more": "more"})
    assert ([row["passage"] for row in good], bad) == ([row["passage"] for row in rows()], [])
    assert [row["kept"]["more"]["lang"] for row in good] == [row["query_id"] for row in rows()]


def test_old_timestamps_of_spark_keep_years_that_nanoseconds_do_not_reach(tmp_path: Path) -> None:
    days = [datetime(9999, 12, 31), datetime(1600, 1, 1, 0, 0, 0, 1), datetime(2024, 2, 29, 12)]
    table = pa.Table.from_pylist(rows(queries=1)).append_column("until", pa.array(days, pa.timestamp("us")))
    pq.write_table(table, tmp_path / "t.parquet", use_deprecated_int96_timestamps=True)
    good, _ = read_all(tmp_path / "t.parquet", "parquet", kept={"until": "until"})
    assert [row["kept"]["until"] for row in good] == days


@pytest.mark.parametrize(
    "kind", [pa.null(), pa.list_(pa.struct({"passage_id": pa.string(), "passage": pa.string()}))]
)
def test_a_table_whose_lists_are_all_null_is_refused(tmp_path: Path, kind: pa.DataType) -> None:
    columns = {"query_id": ["a", "b"], "query": ["x", "y"], "candidates": pa.array([None, None], kind)}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="t.parquet: holds no candidates"):
        plan(tmp_path / "t.parquet", "parquet")
