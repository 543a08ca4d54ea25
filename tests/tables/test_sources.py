"""Tables read whole: sizes, file ranges, and values that don't fit."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.tables import sources
from pipeline.tables.config import PairsConfig, TextsConfig
from pipeline.tables.formats import parquet

PAIR = ["query_id", "passage_id"]


def test_size_is_what_rows_take_in_memory(tmp_path: Path) -> None:
    # A dictionary in the file holds the text once; the column of numbers is not read.
    table = pa.table({"_id": range(1000), "text": ["x" * 1000] * 1000, "vector": [[0.0] * 500] * 1000})
    pq.write_table(table, tmp_path / "texts.parquet")
    source = sources.scan(TextsConfig(path=str(tmp_path)), "passages", ["_id", "text"])
    assert source.rows == 1000
    assert 1_000_000 < source.size_bytes < 1_100_000


def test_a_parquet_file_is_read_in_ranges_of_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_TABLE_RANGE_BYTES", 1)
    table = pa.table({"query_id": range(10), "passage_id": range(10)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=4)
    pq.write_table(table[:0], tmp_path / "b.parquet")
    source = sources.scan(PairsConfig(path=str(tmp_path)), "candidates", PAIR)
    assert [(file_range.start, file_range.stop) for file_range in source.file_ranges] == [
        (0, 4),
        (4, 8),
        (8, 10),
    ]
    rows = [
        number
        for file_range in source.file_ranges
        for _, row in sources.read(file_range, source, PAIR)
        for number in row
    ]
    assert [number.as_py() for number in rows] == list(range(1, 11))
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(InputError, match="holds no rows"):
        sources.scan(PairsConfig(path=str(tmp_path)), "candidates", PAIR)


@pytest.mark.parametrize("value", ["7", 2**70, True, "\ud800", [1]])
def test_a_json_value_that_does_not_fit_is_named(tmp_path: Path, value: object) -> None:
    rows = [{"query_id": number, "passage_id": f"p{number}"} for number in range(5)]
    rows[3]["passage_id" if value == "\ud800" else "query_id"] = value
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = PairsConfig(path=str(tmp_path / "a.jsonl"), format="jsonl")
    source = sources.scan(config, "candidates", PAIR)
    with pytest.raises(InputError, match=r"a.jsonl line 4: .* does not fit its column"):
        list(sources.read(source.file_ranges[0], source, PAIR))


@pytest.mark.parametrize("table_format", ["parquet", "jsonl"])
def test_columns_in_the_path_are_read(tmp_path: Path, table_format: str) -> None:
    for lang in ("en", "de"):
        folder = tmp_path / f"lang={lang}"
        folder.mkdir()
        if table_format == "parquet":
            pq.write_table(pa.table({"query_id": [1], "passage_id": [2]}), folder / "a.parquet")
        else:
            (folder / "a.jsonl").write_text('{"query_id": 1, "passage_id": 2}\n')
    config = PairsConfig.model_validate({"path": str(tmp_path), "format": table_format})
    source = sources.scan(config, "candidates", PAIR)
    found = [
        row
        for file_range in source.file_ranges
        for table, _ in sources.read(file_range, source, [*PAIR, "lang"])
        for row in table.to_pylist()
    ]
    assert [row["lang"] for row in found] == ["de", "en"]


def test_a_kept_column_may_begin_late_or_change_its_type(tmp_path: Path) -> None:
    rows = [{"_id": str(number), "text": "a", "year": number} for number in range(1100)]
    rows += [{"_id": "x", "text": "a", "year": "late", "color": "red"}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = TextsConfig(path=str(tmp_path / "t.jsonl"), format="jsonl")
    types = sources.scan(config, "passages", ["_id", "text"], ["year", "color"]).types
    assert (types["year"], types["color"]) == (pa.string(), pa.string())
    assert sources.scan(config, "passages", ["_id", "text"]).types.keys() == {"_id", "text", "title", "year"}


def texts(path: Path, **more: str) -> sources.Source:
    config = TextsConfig(path=str(path), format="jsonl")
    return sources.scan(config, more.get("field", "passages"), ["_id", "text"])


def test_queries_that_lie_among_the_passages_are_refused(tmp_path: Path) -> None:
    for name in ("corpus", "queries"):
        (tmp_path / f"{name}.jsonl").write_text('{"_id": "1", "text": "one"}\n')
    folder, passages = texts(tmp_path), texts(tmp_path / "corpus.jsonl")
    queries = texts(tmp_path / "queries.jsonl", field="queries")
    sources.check_apart(passages, queries)
    with pytest.raises(
        InputError,
        match=r"^passages.path: .* has .*/queries.jsonl, which queries.path has too: .* Name the passages"
        r" alone: passages.path=.*/corpus.jsonl$",
    ):
        sources.check_apart(folder, queries)
    with pytest.raises(InputError, match=r"^queries.path: .* alone: queries.path=.*/queries.jsonl or so$"):
        sources.check_apart(passages, texts(tmp_path, field="queries"), " or so")
    with pytest.raises(InputError, match=r"alone: a file for passages, another for queries$"):
        sources.check_apart(folder, texts(tmp_path, field="queries"))
    (tmp_path / "queries.jsonl").write_text('{"_id": "1", "text": "one", "answer": "two"}\n')
    config = TextsConfig.model_validate(
        {"path": str(tmp_path / "queries.jsonl"), "format": "jsonl", "columns": {"text": "answer"}}
    )
    answers = sources.scan(config, "passages", ["_id", "answer"])
    sources.check_apart(answers, texts(tmp_path / "queries.jsonl", field="queries"))


def test_queries_are_known_by_their_name_where_the_queries_are_a_file_elsewhere(tmp_path: Path) -> None:
    row, folder = '{"_id": "1", "text": "one"}\n', tmp_path / "queries"
    for name in ("scifact/corpus.jsonl", "scifact/queries.jsonl", "some.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(row)
    some = texts(folder / "some.jsonl", field="queries")
    told = (
        r"^passages.path: .* has .*/queries.jsonl, which is named for queries: .* Name the passages alone:"
        r" passages.path=.*/corpus.jsonl; if it holds passages, rename it or so$"
    )
    for path in (folder / "scifact", folder / "scifact" / "*.jsonl"):
        with pytest.raises(InputError, match=told):
            sources.check_apart(texts(path), some, " or so")
    sources.check_apart(texts(folder / "scifact" / "corpus.jsonl"), some)
    with pytest.raises(
        InputError, match=r"has .*/corpus.jsonl, which is named for passages: .*/queries.jsonl;"
    ):
        sources.check_apart(None, texts(folder / "scifact", field="queries"))
    # A folder for each, as the hub has BEIR; then one of the parts alone is not the whole table.
    for name in ("hub/corpus/part-0.jsonl", "hub/corpus/part-1.jsonl", "hub/queries/part-0.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(row)
    with pytest.raises(InputError, match=r"queries/part-0.jsonl, .* a glob or a folder of these 2 files"):
        sources.check_apart(texts(tmp_path / "hub"), some)
    sources.check_apart(
        texts(tmp_path / "hub" / "corpus"), texts(tmp_path / "hub" / "queries", field="queries")
    )


def test_a_file_that_is_none_of_the_table_is_told_with_how_to_name_another(tmp_path: Path) -> None:
    (tmp_path / "INFO.json").write_text('{\n"name": "cranfield"\n}\n')
    (tmp_path / "docs.jsonl").write_text('{"_id": "1", "text": "one"}\n')
    told = (
        r"^.* means 2 files, of which one can't be read as passages: .*/INFO.json line 1: not a JSON object."
        r" To read one file alone: passages.path=.*/docs.jsonl$"
    )
    with pytest.raises(InputError, match=told):
        texts(tmp_path)
    (tmp_path / "queries.jsonl").write_text('{"_id": "1", "text": "one"}\n')
    with pytest.raises(InputError, match=r"alone: queries.path=.*/queries.jsonl$"):
        texts(tmp_path, field="queries")
    (tmp_path / "queries.jsonl").unlink()
    with pytest.raises(
        InputError, match=r"is its format right.*It looks like jsonl: --set passages.format=jsonl$"
    ):
        sources.scan(TextsConfig(path=str(tmp_path / "docs.jsonl")), "passages", ["_id", "text"])
    told = (
        r"no files here.* passages.format is parquet; it may be csv, jsonl, tsv: --set passages.format=...$"
    )
    with pytest.raises(InputError, match=told):
        sources.scan(TextsConfig(path=str(tmp_path)), "passages", ["_id", "text"])
    with pytest.raises(InputError, match=r"no column 'body'; it has _id, text. Name"):
        sources.scan(
            TextsConfig(path=str(tmp_path / "docs.jsonl"), format="jsonl"), "passages", ["_id", "body"]
        )
