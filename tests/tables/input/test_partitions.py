from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.tables.input.partitions import hive_partitions
from tests.tables.conftest import WRITERS, nested, plan, read_all, rows, write_jsonl, write_parquet


def test_values_are_decoded() -> None:
    assert hive_partitions("s3://b/t/lang=zh%2FHant/day=__HIVE_DEFAULT_PARTITION__/a=b=c/x=y.parquet") == {
        "lang": "zh/Hant",
        "day": None,
        "a": "b=c",
    }
    assert hive_partitions("/plain/file.parquet") == {}
    with pytest.raises(InputError, match=r"/lang=en/a=1/l%61ng=fr: names the column 'lang' twice"):
        hive_partitions("/t/lang=en/a=1/l%61ng=fr/part-0.parquet")


def partitioned(path: Path, table_format: str) -> Path:
    """q0 stands in lang=en, q1 in none, q2 in lang=a b."""
    for row_id, directory in enumerate(("en", "__HIVE_DEFAULT_PARTITION__", "a%20b")):
        place = path / f"lang={directory}" / "day=2026-11-20"
        place.mkdir(parents=True)
        table = [row for row in rows(queries=3) if row["query_id"] == f"q{row_id}"]
        WRITERS[table_format](place / "part-0", table)
    return path


def test_columns_of_the_path_are_kept(tmp_path: Path, flat_format: str) -> None:
    path = partitioned(tmp_path / "t", flat_format)
    kept = {"language": "lang", "day": "day", "first": "first_score"}
    good, bad = read_all(path, flat_format, shard_pairs=4, kept=kept)
    assert bad == []
    found = {row["query_id"]: row["kept"] for row in good}
    assert {query: row["language"] for query, row in found.items()} == {"q0": "en", "q1": None, "q2": "a b"}
    assert {row["day"] for row in found.values()} == {"2026-11-20"}
    assert float(good[1]["kept"]["first"]) == 1.0


@pytest.mark.parametrize("pattern", ["lang=en", "lang=*/day=*/*", "lang=en/day=2026-11-20/part-0.*"])
def test_the_path_may_begin_below_a_partition_or_be_a_glob(
    tmp_path: Path, flat_format: str, pattern: str
) -> None:
    path = partitioned(tmp_path / "t", flat_format)
    if "part-0" in pattern:
        (found,) = path.glob(pattern)
        pattern = str(found.relative_to(path))
    good, _ = read_all(path / pattern, flat_format, kept={"language": "lang"})
    assert {row["kept"]["language"] for row in good if row["query_id"] == "q0"} == {"en"}


def test_a_file_without_the_partition_is_named(tmp_path: Path, flat_format: str) -> None:
    path = partitioned(tmp_path / "t", flat_format)
    WRITERS[flat_format](path / "part-9", [{**row, "query_id": "q9"} for row in rows(queries=1)])
    with pytest.raises(InputError, match=r"t/part-9\.\w+: no (column 'lang'|directory lang=)"):
        plan(path, flat_format, kept={"language": "lang"})
    assert len(read_all(path, flat_format)[0]) == 12


def test_the_query_id_may_stand_in_the_path(tmp_path: Path, flat_format: str) -> None:
    for query in ("q0", "q1"):
        place = tmp_path / f"query_id={query}"
        place.mkdir()
        table = [{key: row[key] for key in ("query", "passage_id", "passage")} for row in rows(queries=1)]
        for part in range(2):
            WRITERS[flat_format](place / f"part-{part}", table[part : part + 1])
    good, _ = read_all(tmp_path, flat_format, shard_pairs=2)
    assert [(row["query_id"], row["passage_id"]) for row in good] == [
        ("q0", "p0"), ("q0", "p1"), ("q1", "p0"), ("q1", "p1"),
    ]  # fmt: skip
    assert [shard.queries for shard in plan(tmp_path, flat_format, shard_pairs=2).shards] == [1, 1]


@pytest.mark.parametrize("writer", [write_parquet, write_jsonl])
def test_what_the_file_holds_goes_first(tmp_path: Path, writer: object) -> None:
    assert callable(writer)
    place = tmp_path / "first_score=7" / "lang=en"
    place.mkdir(parents=True)
    path = writer(place / "t", nested(rows()))
    table_format = path.suffix.removeprefix(".")
    good, _ = read_all(path, table_format, kept={"first": "first_score", "lang": "lang"})
    assert good[1]["kept"] == {"first": 1.0, "lang": "en"}


def test_a_trec_run_has_its_paths_columns(tmp_path: Path) -> None:
    place = tmp_path / "system=bm25"
    place.mkdir()
    (place / "run.trec").write_text("q1 Q0 d1 1 9.5 x\n")
    (tmp_path / "texts.tsv").write_text("q1\tfirst\nd1\tbody\n")
    texts = str(tmp_path / "texts.tsv")
    kept = {"system": "system", "rank": "rank"}
    good, _ = read_all(place, "trec", kept=kept, queries=texts, passages=texts)
    assert good[0]["kept"] == {"system": "bm25", "rank": 1}
