"""A table whose files differ as those of Spark, pandas and dask do: read as one, or refused by name."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.tables.config import InputConfig, PairsConfig, TextsConfig
from pipeline.tables.input.columns import TextColumns
from pipeline.tables.sources import read as sources_read
from pipeline.tables.sources import scan
from tests.tables.conftest import TEXTS, nested, plan, read_all, rows, write_parquet


def write(file: Path, rows: list[dict[str, Any]], **types: pa.DataType) -> None:
    """types: of columns that are not as pyarrow would guess."""
    table = pa.Table.from_pylist(rows)
    for name, kind in types.items():
        table = table.set_column(
            table.schema.get_field_index(name), name, pa.array([row[name] for row in rows], kind)
        )
    file.parent.mkdir(exist_ok=True)
    pq.write_table(table, file)


def numbered(start: int, count: int = 2) -> list[dict[str, Any]]:
    """Rows of integer ids, a query each."""
    return [
        {
            "query_id": number,
            "query": f"query {number}",
            "passage_id": number + 100,
            "passage": "p",
            "n": number,
        }
        for number in range(start, start + count)
    ]


@pytest.mark.parametrize("layout", ["flat", "nested"])
def test_partitions_without_rows_or_values_cost_nothing(tmp_path: Path, layout: str) -> None:
    make = nested if layout == "nested" else list
    whole = rows(queries=3, candidates=2)
    write_parquet(tmp_path / "part-1", make(whole[:4]))
    schema = pq.read_schema(tmp_path / "part-1.parquet")
    with pq.ParquetWriter(tmp_path / "part-0.parquet", schema):
        pass  # no row group, as Spark leaves it
    untyped = pa.schema([(name, pa.null()) for name in schema.names])
    pq.write_table(untyped.empty_table(), tmp_path / "part-2.parquet")  # as pandas leaves it
    write_parquet(tmp_path / "part-3", make(whole[4:]))
    good, bad = read_all(tmp_path, "parquet", 4, kept={"first": "first_score"})
    assert [[row[name] for name in TEXTS] for row in good] == [[row[name] for name in TEXTS] for row in whole]
    assert [row["kept"]["first"] for row in good] == [row["first_score"] for row in whole]
    assert bad == []


def test_queries_without_any_candidate_are_nested_ones(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a", nested(rows(queries=1, candidates=2)))
    empty = pa.table({"query_id": ["x", "y"], "query": ["a", "b"], "candidates": [[], None]})
    assert empty.schema.field("candidates").type == pa.list_(pa.null())
    pq.write_table(empty, tmp_path / "b.parquet")
    good, bad = read_all(tmp_path, "parquet", 4, kept={"first": "first_score"})
    assert (len(good), [(row["query_id"], row["reason"]) for row in bad]) == (2, [("y", "null_candidates")])


def test_a_column_without_a_value_is_as_the_other_files_have_it(tmp_path: Path) -> None:
    write(tmp_path / "in/a.parquet", numbered(0))
    without = [{**row, "query": None, "n": None} for row in numbered(2)]
    write(tmp_path / "in/b.parquet", without)
    good, bad = read_all(tmp_path / "in", "parquet", 4, kept={"n": "n"})
    assert [row["kept"]["n"] for row in good] == [0, 1]
    assert [row["reason"] for row in bad] == ["null_query", "null_query"]
    write(tmp_path / "in/b.parquet", [{**row, "query_id": None} for row in numbered(2)])
    good, bad = read_all(tmp_path / "in", "parquet", 4)
    assert [row["query_id"] for row in good] == [0, 1]
    assert [row["reason"] for row in bad] == ["null_query_id", "null_query_id"]


def test_integers_of_other_widths_are_one_type(tmp_path: Path) -> None:
    write(tmp_path / "in/a.parquet", numbered(0), query_id=pa.int32(), passage_id=pa.uint16(), n=pa.int8())
    write(tmp_path / "in/b.parquet", numbered(1, 3), n=pa.float32())  # goes on with query 1
    planned = plan(tmp_path / "in", "parquet", 4, kept={"n": "n"})
    assert planned.schema.field("query_id").type == pa.int64()
    assert planned.schema.field("kept").type == pa.struct([("n", pa.float32())])
    good, bad = read_all(tmp_path / "in", "parquet", 4, kept={"n": "n"})
    assert [row["query_id"] for row in good] == [0, 1, 2, 3]
    assert [row["kept"]["n"] for row in good] == [0.0, 1.0, 2.0, 3.0]
    assert [row["reason"] for row in bad] == ["duplicate_pair"]
    # The same query apart is seen through widths, too.
    write(tmp_path / "in/c.parquet", numbered(0, 1), query_id=pa.int16())
    with pytest.raises(InputError, match=r"a.parquet row 1 and again at .*c.parquet row 1"):
        plan(tmp_path / "in", "parquet")


def test_a_value_that_the_common_type_cant_hold_is_named(tmp_path: Path) -> None:
    write(tmp_path / "in/a.parquet", [{**row, "n": 2**53 + 1} for row in numbered(0)])
    write(tmp_path / "in/b.parquet", numbered(2), n=pa.float64())
    with pytest.raises(InputError, match=r"a.parquet: column 'n' is int64 here and double in the table"):
        read_all(tmp_path / "in", "parquet", 4, kept={"number": "n"})


def test_files_of_lines_without_ids_are_of_any_type(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in numbered(0)]
    (tmp_path / "a.jsonl").write_text(json.dumps({**numbered(0)[0], "query_id": None, "passage_id": None}))
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    good, bad = read_all(tmp_path, "jsonl", 4)
    assert ([row["query_id"] for row in good], [row["reason"] for row in bad]) == ([0, 1], ["null_query_id"])


@pytest.mark.parametrize("sign", ["", "-"])
def test_an_integer_id_beyond_64_bits_is_a_rejected_row(tmp_path: Path, sign: str) -> None:
    lines = [json.dumps(row) for row in numbered(0, 3)]
    lines[0] = lines[0].replace('"query_id": 0', f'"query_id": {sign}9223372036854775809')
    lines[2] = lines[2].replace('"passage_id": 102', f'"passage_id": {sign}{"9" * 40}')
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    good, bad = read_all(tmp_path / "a.jsonl", "jsonl", 4)
    assert [row["query_id"] for row in good] == [1]
    assert [(row["row"], row["reason"]) for row in bad] == [(1, "invalid_id"), (3, "invalid_id")]


def test_a_kept_integer_stays_exact_or_is_refused(tmp_path: Path) -> None:
    large = [{**row, "n": n} for row, n in zip(numbered(0, 2), (2**70, 1), strict=True)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, large)))
    good, _ = read_all(tmp_path / "a.jsonl", "jsonl", 4, kept={"n": "n"})
    assert [row["kept"]["n"] for row in good] == [str(2**70), "1"]
    mixed = [{**row, "n": n} for row, n in zip(numbered(0, 2), (2**53 + 1, 0.5), strict=True)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, mixed)))
    with pytest.raises(InputError, match=r"a.jsonl line 1: n: 9007199254740993 stands in a column with"):
        read_all(tmp_path / "a.jsonl", "jsonl", 4, kept={"n": "n"})


TWICE = {
    "csv": "query_id,query,passage_id,passage,passage\n1,a,p1,one,two\n",
    "tsv": "query_id\tquery\tpassage_id\tpassage\tpassage\n1\ta\tp1\tone\ttwo\n",
}


@pytest.mark.parametrize("suffix", TWICE)
def test_a_column_named_twice_in_a_header_is_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.{suffix}").write_text(TWICE[suffix])
    with pytest.raises(InputError, match=rf"a.{suffix}: column 'passage' stands there twice; rename one"):
        plan(tmp_path / f"a.{suffix}", "csv")


def test_a_column_named_twice_in_parquet_is_refused(tmp_path: Path) -> None:
    one = pa.array(["x"])
    flat = pa.table([one] * 5, names=["query_id", "query", "passage_id", "passage", "passage"])
    pq.write_table(flat, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a.parquet: column 'passage' stands there twice"):
        plan(tmp_path / "a.parquet", "parquet")
    fields = [pa.field(name, pa.string()) for name in ("passage_id", "passage", "passage")]
    lists = pa.ListArray.from_arrays([0, 1], pa.StructArray.from_arrays([one] * 3, fields=fields))
    table = pa.table([one, one, lists], names=["query_id", "query", "candidates"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a.parquet, in candidates: column 'passage' stands there twice"):
        plan(tmp_path / "a.parquet", "parquet")


def test_a_key_that_stands_twice_in_an_object_is_a_malformed_row(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in numbered(0, 2)]
    lines[0] = lines[0].replace('"passage": "p"', '"passage": "p", "passage": "q"')
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    good, bad = read_all(tmp_path / "a.jsonl", "jsonl", 4)
    assert ([row["query_id"] for row in good], [row["reason"] for row in bad]) == ([1], ["malformed_row"])


def test_a_number_beyond_floats_is_a_malformed_row(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in numbered(0, 2)]
    lines[0] = lines[0].replace('"n": 0', '"n": 1e400')
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    good, bad = read_all(tmp_path / "a.jsonl", "jsonl", 4, kept={"n": "n"})
    assert ([row["kept"]["n"] for row in good], [row["reason"] for row in bad]) == ([1], ["malformed_row"])


@pytest.mark.parametrize("first", ["true", "1.0", "[1]", "null", "9" * 30])
def test_the_first_id_that_is_one_tells_the_type(tmp_path: Path, first: str) -> None:
    lines = [json.dumps(row) for row in numbered(0, 3)]
    lines[0] = lines[0].replace('"passage_id": 100', f'"passage_id": {first}')
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    good, bad = read_all(tmp_path / "a.jsonl", "jsonl", 4)
    assert [row["passage_id"] for row in good] == [101, 102]
    assert [row["row"] for row in bad] == [1]


@pytest.mark.parametrize("folder", ["_lang=en", "x/_lang=en", "_lang=en/day=1"])
def test_a_partition_by_a_column_that_begins_like_a_marker_is_data(tmp_path: Path, folder: str) -> None:
    write_parquet(tmp_path / "a", rows(queries=1, candidates=2))
    (tmp_path / folder).mkdir(parents=True)
    write_parquet(
        tmp_path / folder / "b", [{**row, "query_id": "z"} for row in rows(queries=1, candidates=2)]
    )
    for marker in ("_temporary", ".spark=staging"):
        (tmp_path / marker).mkdir()
        write_parquet(tmp_path / marker / "c", rows(queries=1, candidates=2))
    good, bad = read_all(tmp_path, "parquet", 4)
    assert (sorted(row["query_id"] for row in good), bad) == (["q0", "q0", "z", "z"], [])


@pytest.mark.parametrize("name", ["id", "text"])
def test_a_title_that_is_the_text_or_id_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} and title are both column 'title': set title to another"):
        TextColumns.model_validate({name: "title"})
    assert TextColumns.model_validate({name: "title", "title": None}).title is None


def test_one_column_for_query_and_passage_is_refused() -> None:
    with pytest.raises(ValueError, match="query and passage are both column 'text'"):
        InputConfig.model_validate({"path": "x", "columns": {"query": "text", "passage": "text"}})


def test_files_that_are_not_in_the_order_of_their_numbers_are_told(tmp_path: Path) -> None:
    for part, start in ((2, 2), (9, 8), (10, 9)):  # query 9 goes on from part.9 to part.10
        write(tmp_path / f"in/part.{part}.parquet", numbered(start))
    with pytest.raises(InputError, match=r"order of their names, part.10.parquet before part.2.parquet: if"):
        plan(tmp_path / "in", "parquet")


@pytest.mark.parametrize("statistics", [True, False])
def test_a_column_without_a_value_may_be_of_any_type(tmp_path: Path, statistics: bool) -> None:
    """pandas makes floats of missing texts, and other writers dates or integers."""
    write(tmp_path / "b.parquet", numbered(3))
    kinds = {"passage": pa.float64(), "query_id": pa.float64(), "n": pa.timestamp("ms"), "query": pa.bool_()}
    for at, (name, kind) in enumerate(kinds.items()):
        table = pa.Table.from_pylist([{**row, name: None} for row in numbered(10 * at + 10)])
        table = table.set_column(table.schema.get_field_index(name), name, pa.nulls(2, kind))
        pq.write_table(table, tmp_path / f"{name}.parquet", write_statistics=statistics)
    good, bad = read_all(tmp_path, "parquet", kept={"n": "n"})
    assert [(row["query_id"], row["kept"]["n"]) for row in good] == [(3, 3), (4, 4), (30, None), (31, None)]
    reasons = sorted(row["reason"] for row in bad)
    assert reasons == [*["null_passage"] * 2, *["null_query"] * 2, *["null_query_id"] * 2]
    write(tmp_path / "z.parquet", [{**row, "passage": 2.5} for row in numbered(90)])
    with pytest.raises(InputError, match=r"z.parquet: column 'passage' is double, a text is needed"):
        plan(tmp_path, "parquet")


def test_a_column_without_a_value_in_a_list(tmp_path: Path) -> None:
    table = nested(rows(queries=1, candidates=2))
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "a.parquet")
    struct = pa.struct(
        [("passage_id", pa.string()), ("passage", pa.float64()), ("first_score", pa.float32())]
    )
    empty = [{"passage_id": "p", "passage": None, "first_score": None}]
    other = {"query_id": ["q9"], "query": ["q"], "candidates": pa.array([empty], pa.list_(struct))}
    pq.write_table(pa.table(other), tmp_path / "b.parquet")
    good, bad = read_all(tmp_path, "parquet", kept={"s": "first_score"})
    assert [row["kept"]["s"] for row in good] == [0.0, 1.0]
    assert [(row["query_id"], row["reason"]) for row in bad] == [("q9", "null_passage")]


def test_a_column_without_any_value_keeps_its_type_in_the_run(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [{**row, "n": None} for row in numbered(1)], n=pa.float64())
    write(tmp_path / "b.parquet", [{**row, "n": None} for row in numbered(3)])
    assert (
        plan(tmp_path, "parquet", kept={"n": "n"}).schema.field("kept").type.field("n").type == pa.float64()
    )


def test_parquet_files_without_rows_contradict_nothing(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", numbered(3))
    empty = {
        "a": pa.table({}),
        "c": pa.table({"other": pa.array([], pa.int64())}),
        "d": pa.table({"query_id": pa.array([], pa.list_(pa.int8())), "query": pa.array([], pa.date32())}),
    }
    for name, table in empty.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
    planned = plan(tmp_path, "parquet", kept={"n": "n"})
    assert [shard.pairs for shard in planned.shards] == [2]
    assert planned.skipped == {f"{tmp_path}/{name}.parquet": "holds no rows" for name in empty}
    source = scan(PairsConfig(path=str(tmp_path)), "candidates", ["query_id", "passage_id"])
    assert source.skipped == planned.skipped
    assert list(source.types) == ["query_id", "query", "passage_id", "passage", "n"]


def test_prepare_takes_a_column_without_a_value_of_any_type(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [{"_id": "a", "text": None, "title": None, "n": None}], text=pa.float64())
    write(tmp_path / "b.parquet", [{"_id": "b", "text": "two", "title": "t", "n": 7}])
    source = scan(TextsConfig(path=str(tmp_path)), "passages", ["_id", "text"])
    assert {name: str(kind) for name, kind in source.types.items()} == {
        "_id": "string", "text": "string", "title": "string", "n": "int64",
    }  # fmt: skip
    found = [
        row
        for file_range in source.file_ranges
        for read in sources_read(file_range, source, list(source.types))
        for row in read.columns.to_pylist()
    ]
    assert [(row["text"], row["title"], row["n"]) for row in found] == [(None, None, None), ("two", "t", 7)]
