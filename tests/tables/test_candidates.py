import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.tables.candidates import read_shard
from pipeline.tables.config import InputConfig
from pipeline.tables.format import candidate_format
from tests.tables.conftest import TEXTS, WRITERS, nested, plan, read_all, rows, write_jsonl, write_parquet


@pytest.mark.parametrize("shard_pairs", [1, 4, 7, 1000])
def test_every_row_is_read_once_in_order(tmp_path: Path, flat_format: str, shard_pairs: int) -> None:
    path = WRITERS[flat_format](tmp_path / "table", rows())
    good, bad = read_all(path, flat_format, shard_pairs)
    assert [[row[name] for name in TEXTS] for row in good] == [
        [row[name] for name in TEXTS] for row in rows()
    ]
    assert bad == []


@pytest.mark.parametrize("writer", [write_parquet, write_jsonl])
@pytest.mark.parametrize("shard_pairs", [1, 4, 1000])
def test_nested_tables_hold_the_same(tmp_path: Path, writer: object, shard_pairs: int) -> None:
    assert callable(writer)
    path = writer(tmp_path / "table", nested(rows()))
    table_format = path.suffix.removeprefix(".")
    good, bad = read_all(path, table_format, shard_pairs, kept={"first": "first_score"})
    assert [[row[name] for name in TEXTS] for row in good] == [
        [row[name] for name in TEXTS] for row in rows()
    ]
    assert [(row["row"], row["item"]) for row in good[:4]] == [(1, 1), (1, 2), (1, 3), (2, 1)]
    assert [row["kept"]["first"] for row in good[:3]] == [0.0, 1.0, 2.0]
    assert bad == []


def test_shards_hold_whole_queries_of_about_the_size_asked_for(tmp_path: Path, flat_format: str) -> None:
    path = WRITERS[flat_format](tmp_path / "table", rows(queries=10, candidates=3))
    shards = plan(path, flat_format, shard_pairs=7).shards
    assert [(shard.queries, shard.pairs) for shard in shards] == [(2, 6)] * 5
    assert [shard.name for shard in shards[:2]] == ["shard-000000", "shard-000001"]


def test_a_query_may_go_on_in_the_next_file(tmp_path: Path, flat_format: str) -> None:
    table = rows(queries=4, candidates=5)
    for part, (start, stop) in enumerate([(0, 8), (8, 10), (10, 20)]):
        WRITERS[flat_format](tmp_path / f"part-{part}", table[start:stop])
    planned = plan(tmp_path, flat_format, shard_pairs=5)
    assert [(shard.queries, shard.pairs) for shard in planned.shards] == [(1, 5)] * 4
    good, _ = read_all(tmp_path, flat_format, shard_pairs=5)
    assert [row["passage_id"] for row in good] == [row["passage_id"] for row in table]


def test_top_k_takes_the_first_of_each_query_that_can_be_scored(tmp_path: Path, flat_format: str) -> None:
    table = rows(queries=3, candidates=5)
    table[1]["passage_id"] = "p0"  # a second time
    for part, (start, stop) in enumerate([(0, 7), (7, 15)]):
        WRITERS[flat_format](tmp_path / f"part-{part}", table[start:stop])
    good, bad = read_all(tmp_path, flat_format, top_k=3)
    assert [row["passage_id"] for row in good] == ["p0", "p2", "p3", "p0", "p1", "p2", "p0", "p1", "p2"]
    assert [row["reason"] for row in bad] == ["duplicate_pair"]
    planned = plan(tmp_path, flat_format, shard_pairs=5, top_k=3)
    assert [(shard.candidates, shard.pairs) for shard in planned.shards] == [(5, 3), (5, 5), (5, 3)]


def test_top_k_cuts_lists_too(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "table", nested(rows()))
    good, _ = read_all(path, "parquet", top_k=2)
    assert [row["item"] for row in good] == [1, 2] * 5


def test_a_count_that_does_not_balance_is_no_run(tmp_path: Path, flat_format: str) -> None:
    path = WRITERS[flat_format](tmp_path / "table", rows(queries=2, candidates=3))
    planned = plan(path, flat_format)
    config = InputConfig.model_validate({"path": str(path), "format": flat_format})
    wrong = planned.shards[0].model_copy(update={"candidates": 7})
    with pytest.raises(InputError, match="shard-000000 was planned with 7 pairs, and 6 were read"):
        read_shard(wrong, config, {}, planned)


def test_lines_before_the_first_id_are_counted(tmp_path: Path) -> None:
    lines = ["no json", '{"query_id": null, "query": "a", "passage_id": "p", "passage": "b"}']
    good = {"query_id": "q", "query": "a", "passage_id": "p", "passage": "b"}
    (tmp_path / "t.jsonl").write_text("\n".join([lines[1], lines[0], json.dumps(good)]) + "\n")
    assert plan(tmp_path / "t.jsonl", "jsonl").shards[0].pairs == 3
    kept, refused = read_all(tmp_path / "t.jsonl", "jsonl")
    assert (len(kept), len(refused)) == (1, 2)


def test_a_query_in_two_places_is_named(tmp_path: Path, flat_format: str) -> None:
    table = rows(queries=3, candidates=2)
    WRITERS[flat_format](tmp_path / "a", table)
    WRITERS[flat_format](tmp_path / "b", rows(queries=1, candidates=2))
    with pytest.raises(InputError, match=r"a\.\w+ row \d and again at .*b\.\w+ row \d.*sort the table"):
        plan(tmp_path, flat_format)


def test_columns_of_other_names_and_kept_ones(tmp_path: Path, flat_format: str) -> None:
    names = {"query_id": "qid", "query": "q", "passage_id": "docno", "passage": "body"}
    table = [{names.get(key, key): value for key, value in row.items()} for row in rows()]
    path = WRITERS[flat_format](tmp_path / "table", table)
    good, _ = read_all(path, flat_format, columns=names, kept={"first": "first_score", "text": "body"})
    assert good[1]["passage"] == good[1]["kept"]["text"] == table[1]["body"]
    assert float(good[1]["kept"]["first"]) == 1.0
    with pytest.raises(
        InputError, match=r"no column 'passage_id'; it has qid, q, docno, body, first_score\."
    ):
        plan(path, flat_format, columns={**names, "passage_id": "passage_id"})
    if flat_format != "jsonl":  # a key that some objects lack is what JSON lines are like: it is null there
        with pytest.raises(InputError, match="no column 'url'"):
            plan(path, flat_format, columns=names, kept={"url": "url"})


def test_rows_that_cant_be_scored_are_rejected_with_the_reason(tmp_path: Path, flat_format: str) -> None:
    table = rows(queries=2, candidates=4)
    table[1]["passage"] = None
    table[2]["passage_id"] = None
    table[3]["query"] = None
    table[4]["query_id"] = None
    table[6]["passage_id"] = table[5]["passage_id"]
    path = WRITERS[flat_format](tmp_path / "table", table)
    good, bad = read_all(path, flat_format, shard_pairs=1)
    assert [row["passage_id"] for row in good] == ["p0", "p1", "p3"]
    reasons = ["null_passage", "null_passage_id", "null_query", "null_query_id", "duplicate_pair"]
    assert [row["reason"] for row in bad] == reasons
    assert all(row["file"].endswith(str(path)) for row in bad)
    assert [row["query_id"] for row in bad] == ["q0", "q0", "q0", None, "q1"]
    if flat_format != "csv":  # there a row of this table spans two lines
        assert [row["row"] for row in bad] == [2, 3, 4, 5, 7]


def test_a_file_that_changes_after_the_plan_is_named(tmp_path: Path, flat_format: str) -> None:
    path = WRITERS[flat_format](tmp_path / "table", rows())
    planned = plan(path, flat_format)
    os.utime(path, (1, 1))
    config = InputConfig.model_validate({"path": str(path), "format": flat_format})
    with pytest.raises(InputError, match="changed while the job ran"):
        read_shard(planned.shards[0], config, {}, planned)


def test_files_with_other_types_are_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a", rows(queries=1))
    write_parquet(tmp_path / "b", [{**row, "query_id": 7} for row in rows(queries=1)])
    with pytest.raises(
        InputError,
        match=r"b.parquet: column 'query_id' is int64, and string in \S*/a.parquet; write it in one type",
    ):
        plan(tmp_path, "parquet")


def test_a_table_without_candidates_is_refused(tmp_path: Path) -> None:
    empty = pa.schema([(name, pa.string()) for name in TEXTS]).empty_table()
    pq.write_table(empty, tmp_path / "empty.parquet")
    with pytest.raises(InputError, match="holds no candidates"):
        plan(tmp_path, "parquet")


@pytest.mark.parametrize("table_format", ["jsonl", "csv"])
def test_compressed_text_is_read(tmp_path: Path, table_format: str) -> None:
    path = WRITERS[table_format](tmp_path / "table", rows())
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    good, _ = read_all(tmp_path, table_format, shard_pairs=4)
    assert len(good) == 15


@pytest.mark.parametrize("shard_pairs", [1, 3, 100])
def test_a_file_without_ids_does_not_split_a_query(tmp_path: Path, shard_pairs: int) -> None:
    table = rows(queries=1, candidates=6)
    write_parquet(tmp_path / "p0", table[:4])
    pq.write_table(pa.Table.from_pylist(table[:1]).slice(1), tmp_path / "p1.parquet")
    nameless = pa.Table.from_pylist(
        [{**table[0], "query_id": None}], schema=pa.Table.from_pylist(table).schema
    )
    pq.write_table(nameless, tmp_path / "p2.parquet")
    write_parquet(tmp_path / "p3", table[4:])
    shards = plan(tmp_path, "parquet", shard_pairs=shard_pairs).shards
    assert [shard.queries for shard in shards] == [1]
    good, bad = read_all(tmp_path, "parquet", shard_pairs=shard_pairs)
    assert (len(good), len(bad)) == (6, 1)


@pytest.mark.parametrize(("one", "other", "kept"), [(1, 1.5, 1.0), (None, 2.5, None), (1, "a", "1")])
def test_kept_json_values_get_one_type_over_files(
    tmp_path: Path, one: object, other: object, kept: object
) -> None:
    for name, value in (("a", one), ("b", other)):
        write_jsonl(tmp_path / name, [{**row, "query_id": name, "s": value} for row in rows(queries=1)])
    good, _ = read_all(tmp_path, "jsonl", shard_pairs=1, kept={"s": "s"})
    assert (good[0]["kept"]["s"], good[-1]["kept"]["s"]) == (kept, other)


def test_truncated_compressed_files_are_named(tmp_path: Path, flat_format: str) -> None:
    if flat_format == "parquet":
        return
    path = WRITERS[flat_format](tmp_path / "table", rows())
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes())[:-20])
    path.unlink()
    with pytest.raises(InputError, match=r"table.\w+.gz: can't be read"):
        plan(tmp_path, flat_format)


def test_a_file_that_is_written_anew_while_it_is_read_is_named(
    tmp_path: Path, flat_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of two versions would be scored as one table."""
    path = WRITERS[flat_format](tmp_path / "table", rows())
    planned = plan(path, flat_format)
    config = InputConfig.model_validate({"path": str(path), "format": flat_format})
    kind = candidate_format(flat_format)
    read = kind.read

    def meanwhile(*given: Any) -> pa.Table:
        table = read(*given)
        os.utime(path, (1, 1))
        return table

    monkeypatch.setattr(kind, "read", meanwhile)
    with pytest.raises(InputError, match="changed while the job ran"):
        read_shard(planned.shards[0], config, {}, planned)
