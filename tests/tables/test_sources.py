"""Tables read whole: sizes, file ranges, and values that don't fit."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.tables import sources
from pipeline.tables.apart import check_apart
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
    monkeypatch.setattr(parquet, "RANGE_BYTES", 1)
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
        for read in sources.read(file_range, source, PAIR)
        for number in read.numbers
    ]
    assert [number.as_py() for number in rows] == list(range(1, 11))
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(InputError, match="holds no rows"):
        sources.scan(PairsConfig(path=str(tmp_path)), "candidates", PAIR)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        *(("query_id", value, "invalid_id") for value in ("7", 2**70, True, 1.5, [1])),
        ("passage_id", 7, "invalid_id"),
        ("passage_id", "\ud800", "invalid_text"),
        ("other", "\ud800", "invalid_text"),
        ("other", {"of": ["\ud800"]}, "invalid_text"),
    ],
)
def test_a_json_value_that_does_not_fit_is_refused(
    tmp_path: Path, field: str, value: object, reason: str
) -> None:
    rows = [{"query_id": number, "passage_id": f"p{number}", "other": "x"} for number in range(5)]
    rows[3][field] = value
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = PairsConfig(path=str(tmp_path / "a.jsonl"), format="jsonl")
    source = sources.scan(config, "candidates", PAIR)
    (read,) = sources.read(source.file_ranges[0], source, [*PAIR, "other"])
    refused = {name: column.to_pylist() for name, column in read.refusals.columns.items()}
    assert refused == {"reason": [None] * 3 + [reason, None], "field": [None] * 3 + [field, None]}
    assert read.columns.to_pylist() == [*rows[:3], rows[3] | {field: None}, rows[4]]


@pytest.mark.parametrize(
    ("table_format", "content", "refused"),
    [
        ("jsonl", b'{"_id": "a", "text": "\xff"}\n', (1, "invalid_text")),
        ("jsonl", b"{oops\n", (1, "malformed_row")),
        ("jsonl", b"null\n", (1, "malformed_row")),
        ("csv", b"_id,text\na,b,c\n", (2, "malformed_row")),
        ("csv", b"_id,text\na\n", (2, "malformed_row")),
        ("tsv", b"_id\ttext\na\tb\tc\n", (2, "malformed_row")),
    ],
)
def test_a_line_that_is_no_row_is_refused_and_a_file_without_any_row(
    tmp_path: Path, table_format: str, content: bytes, refused: tuple[int, str]
) -> None:
    file = tmp_path / f"t.{table_format}"
    file.write_bytes(content)
    config = TextsConfig(path=str(file), format=table_format)
    number, reason = refused
    with pytest.raises(
        InputError, match=rf"holds no row that can be read; line {number}, .* passages.format"
    ):
        sources.scan(config, "passages", ["_id", "text"])
    good = {"jsonl": b'{"_id": "b", "text": "c"}\n', "csv": b"b,c\n", "tsv": b"b\tc\n"}[table_format]
    file.write_bytes(content + good)
    source = sources.scan(config, "passages", ["_id", "text"])
    (read,) = sources.read(source.file_ranges[0], source, ["_id", "text"])
    assert read.columns.to_pylist() == [{"_id": None, "text": None}, {"_id": "b", "text": "c"}]
    assert read.numbers.to_pylist() == [number, number + 1]
    assert read.refusals.columns["reason"].to_pylist() == [reason, None]
    assert read.refusals.columns["field"].to_pylist() == [None, None]


def test_an_odd_id_in_front_does_not_decide_for_the_others(tmp_path: Path) -> None:
    for name, first in (("a", "x9"), ("b", "y")):
        rows = [{"_id": id_, "text": "one"} for id_ in (first, *range(5))]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = texts(tmp_path)
    assert source.types["_id"] == pa.int64()
    for file_range in source.file_ranges:
        (read,) = sources.read(file_range, source, ["_id"])
        assert read.columns["_id"].to_pylist() == [None, 0, 1, 2, 3, 4]
        assert read.refusals.columns["reason"].to_pylist() == ["invalid_id", *[None] * 5]


def test_ids_have_the_type_of_most_and_the_same_in_all_files(tmp_path: Path) -> None:
    rows = [{"_id": id_, "text": "one"} for id_ in (None, [1], 7, "8", 9)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = texts(tmp_path)
    assert source.types["_id"] == pa.int64()
    (read,) = sources.read(source.file_ranges[0], source, ["_id"])
    assert read.columns["_id"].to_pylist() == [None, None, 7, None, 9]
    assert read.refusals.columns["reason"].to_pylist() == [None, "invalid_id", None, "invalid_id", None]
    (tmp_path / "b.jsonl").write_text('{"_id": null, "text": "one"}\n')
    assert texts(tmp_path).types["_id"] == pa.int64()
    (tmp_path / "c.jsonl").write_text('{"_id": "x", "text": "one"}\n')
    with pytest.raises(
        InputError, match=r"c.jsonl: column '_id' is string, and int64 in .*a.jsonl; write it"
    ):
        texts(tmp_path)
    (tmp_path / "c.jsonl").write_text('{"_id": 1, "text": 2}\n')
    with pytest.raises(InputError, match=r"column 'text' is int64, a text is needed"):
        texts(tmp_path / "c.jsonl")


@pytest.mark.parametrize("bare", [{}, {"_id": None, "text": None}])
@pytest.mark.parametrize("kept", [[], ["extra"]])
def test_texts_whose_first_rows_lack_ids_or_texts(tmp_path: Path, bare: object, kept: list[str]) -> None:
    """As Spark sorts and writes them: nulls first, and left out."""
    good = [{"_id": number, "text": "a text", "extra": 1.5} for number in range(3)]
    rows = [*[bare] * 1500, {"_id": 7}, *good]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = TextsConfig(path=str(tmp_path / "t.jsonl"), format="jsonl")
    source = sources.scan(config, "passages", ["_id", "text"], kept)
    assert (source.types["_id"], source.types["text"]) == (pa.int64(), pa.string())
    read = [each.columns for each in sources.read(source.file_ranges[0], source, ["_id", "text"])]
    assert pa.concat_tables(read).slice(1500)["_id"].to_pylist() == [7, 0, 1, 2]


def test_candidates_whose_first_rows_lack_ids(tmp_path: Path) -> None:
    rows = [*[{"extra": 1}] * 1500, {"query_id": 7, "passage_id": 8, "extra": "x"}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = PairsConfig(path=str(tmp_path / "t.jsonl"), format="jsonl")
    source = sources.scan(config, "candidates", ["query_id", "passage_id"])
    assert source.types == {"query_id": pa.int64(), "passage_id": pa.int64(), "extra": pa.string()}


def test_a_json_list_of_rows_is_refused_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[\n{"_id": "a", "text": "b"},\n{"_id": "b", "text": "c"}\n]\n')
    with pytest.raises(InputError, match=r"a.json: begins with `\[`, .* an object on each line: jq -c"):
        texts(tmp_path)


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
        for read in sources.read(file_range, source, [*PAIR, "lang"])
        for row in read.columns.to_pylist()
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
    check_apart(passages, queries)
    with pytest.raises(
        InputError,
        match=r"^passages.path: .* has .*/queries.jsonl, which queries.path has too: .* Name the passages"
        r" alone: passages.path=.*/corpus.jsonl$",
    ):
        check_apart(folder, queries)
    with pytest.raises(InputError, match=r"^queries.path: .* alone: queries.path=.*/queries.jsonl or so$"):
        check_apart(passages, texts(tmp_path, field="queries"), " or so")
    with pytest.raises(InputError, match=r"alone: a file for passages, another for queries$"):
        check_apart(folder, texts(tmp_path, field="queries"))
    (tmp_path / "queries.jsonl").write_text('{"_id": "1", "text": "one", "answer": "two"}\n')
    config = TextsConfig.model_validate(
        {"path": str(tmp_path / "queries.jsonl"), "format": "jsonl", "columns": {"text": "answer"}}
    )
    answers = sources.scan(config, "passages", ["_id", "answer"])
    check_apart(answers, texts(tmp_path / "queries.jsonl", field="queries"))


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
            check_apart(texts(path), some, " or so")
    check_apart(texts(folder / "scifact" / "corpus.jsonl"), some)
    with pytest.raises(
        InputError, match=r"has .*/corpus.jsonl, which is named for passages: .*/queries.jsonl;"
    ):
        check_apart(None, texts(folder / "scifact", field="queries"))
    # A folder for each, as the hub has BEIR; then one of the parts alone is not the whole table.
    for name in ("hub/corpus/part-0.jsonl", "hub/corpus/part-1.jsonl", "hub/queries/part-0.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(row)
    with pytest.raises(InputError, match=r"queries/part-0.jsonl, .* a glob or a folder of these 2 files"):
        check_apart(texts(tmp_path / "hub"), some)
    check_apart(texts(tmp_path / "hub" / "corpus"), texts(tmp_path / "hub" / "queries", field="queries"))


@pytest.mark.parametrize("asked_for", [{}, {"title": "title"}])
def test_a_title_that_is_no_text_is_told_with_the_way_out(tmp_path: Path, asked_for: dict[str, str]) -> None:
    """A title that nobody asked for is looked for, too."""
    for title in (pa.array([1]), pa.array([b"a"]), pa.array([["a"]])):
        pq.write_table(pa.table({"_id": ["p1"], "text": ["a"], "title": title}), tmp_path / "a.parquet")
        config = TextsConfig.model_validate({"path": str(tmp_path), "columns": asked_for})
        message = r"column 'title' is \w+.*, a text is needed; set passages.columns.title to null"
        with pytest.raises(InputError, match=message):
            sources.scan(config, "passages", ["_id", "text", *asked_for])
    without = TextsConfig.model_validate({"path": str(tmp_path), "columns": {"title": None}})
    assert sources.scan(without, "passages", ["_id", "text"]).rows == 1


@pytest.mark.parametrize("kind", [pa.large_string(), pa.int32(), pa.null()])
def test_a_title_without_any_value_may_be_of_any_type(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"_id": ["p1"], "text": ["a"], "title": pa.nulls(1, kind)})
    pq.write_table(table, tmp_path / "a.parquet")
    source = sources.scan(TextsConfig(path=str(tmp_path)), "passages", ["_id", "text"])
    (rows,) = sources.read(source.file_ranges[0], source, ["title"])
    assert rows.columns["title"].to_pylist() == [None]


def test_a_file_that_is_none_of_the_table_is_told_with_how_to_name_another(tmp_path: Path) -> None:
    (tmp_path / "INFO.json").write_text('{\n"name": "cranfield"\n}\n')
    (tmp_path / "docs.jsonl").write_text('{"_id": "1", "text": "one"}\n')
    told = (
        r"^.* means 2 files, of which one can't be read as passages: .*/INFO.json: holds no row that"
        r" can be read; line 1, .*"
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


def test_a_table_that_is_written_anew_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "passages.jsonl"
    path.write_text("".join(f'{{"_id": "p{number}", "text": "{"x" * 1000}"}}\n' for number in range(3000)))
    source = texts(path)
    batches = sources.read(source.file_ranges[0], source, ["_id"])
    next(batches)
    path.write_text(path.read_text())
    with pytest.raises(InputError, match=r"passages\.jsonl: changed while the job ran"):
        list(batches)
    # What is wrong with a row that stands there now has the same cause.
    source = texts(path)
    batches = sources.read(source.file_ranges[0], source, ["_id"])
    next(batches)
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(InputError, match=r"passages\.jsonl: changed while the job ran"):
        list(batches)
