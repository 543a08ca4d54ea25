"""The files of texts beside a run: which lines can be used, and why the others can't."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import InputError
from pipeline.tables.input.columns import ColumnNames
from pipeline.tables.input.layout import Layout
from pipeline.tables.input.limits import DEFAULT_LIMITS, Limits
from pipeline.tables.input.texts_beside import read_texts, unusable_texts
from pipeline.tables.schema import rejects_schema

GOOD = b'{"_id": "p0", "title": "A title", "text": "a text"}'
LONG_ID = "123456789012345678901234567890"


def rejects(queries: Path | None, passages: Path) -> list[dict[str, Any]]:
    layout = Layout(ColumnNames(), {}, None, None if queries is None else str(queries), str(passages))
    rows: list[dict[str, Any]] = unusable_texts(layout, rejects_schema(pa.string(), pa.string())).to_pylist()
    return rows


def texts(path: Path, *wanted: str, limits: Limits = DEFAULT_LIMITS) -> dict[str, str]:
    return read_texts(str(path), limits, "passage", wanted)


@pytest.mark.parametrize(
    ("line", "passage_id", "reason", "field"),
    [
        (b"[]", None, "malformed_row", None),
        (b'{"_id": "p1", "text": "cut', None, "malformed_row", None),
        (b'{"_id": "p1", "_id": "p1", "text": "a"}', None, "malformed_row", None),
        (b'{"_id": "p1", "text": "\xff"}', None, "invalid_text", None),
        (b'{"text": "a"}', None, "null_passage_id", None),
        (b'{"_id": null, "text": "a"}', None, "null_passage_id", None),
        (b'{"_id": 1.0, "text": "a"}', None, "invalid_id", "passage_id"),
        (b'{"_id": true, "text": "a"}', None, "invalid_id", "passage_id"),
        (b'{"_id": ["p1"], "text": "a"}', None, "invalid_id", "passage_id"),
        (b'{"_id": "\\ud800", "text": "a"}', None, "invalid_text", "passage_id"),
        (b'{"_id": "p1", "text": 5}', "p1", "invalid_text", "passage"),
        (b'{"_id": "p1", "text": "\\ud800"}', "p1", "invalid_text", "passage"),
        (b'{"_id": "p1", "title": 0, "text": "a"}', "p1", "invalid_text", "title"),
    ],
)
def test_a_line_that_can_not_be_used_is_a_reject(
    tmp_path: Path, line: bytes, passage_id: str | None, reason: str, field: str | None
) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b"\n".join([GOOD, b"", line, b'{"_id": "p2", "text": ""}']))
    assert texts(path, "p0", "p1", "p2") == {"p0": "A title a text", "p2": ""}
    expected = {"file": str(path), "row": 3, "item": None, "query_id": None, "passage_id": passage_id}
    assert rejects(None, path) == [{**expected, "reason": reason, "field": field}]


def test_tabs_part_an_id_from_a_text(tmp_path: Path) -> None:
    path = tmp_path / "passages.tsv"
    path.write_bytes(b"p0\ta\ttext\nno tab\n\tno id\np1\tbro\xffken\np2\t\nbro\xffken\ta\n")
    assert texts(path, "p0", "p1", "p2", "no tab") == {"p0": "a\ttext", "p2": ""}
    assert [(row["row"], row["passage_id"], row["reason"], row["field"]) for row in rejects(path, path)] == [
        (2, None, "malformed_row", None),
        (3, None, "null_query_id", None),
        (4, None, "invalid_text", "query"),
        (6, None, "invalid_text", "query_id"),
        (2, None, "malformed_row", None),
        (3, None, "null_passage_id", None),
        (4, "p1", "invalid_text", "passage"),
        (6, None, "invalid_text", "passage_id"),
    ]
    assert [row["query_id"] for row in rejects(path, path)][:4] == [None, None, "p1", None]


def test_a_line_without_a_text_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b'{"_id": "p1", "text": null}\n{"_id": "p2", "title": "a title"}\n' + GOOD)
    assert texts(path, "p0", "p1", "p2") == {"p0": "A title a text"}
    assert rejects(None, path) == []


def test_an_integer_id_is_found_by_all_its_digits(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(f'{{"_id": {LONG_ID}, "text": "t"}}\n{{"_id": 7, "text": "u"}}\n')
    assert texts(path, LONG_ID, "7") == {LONG_ID: "t", "7": "u"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            b'{"id": "p1", "contents": "a"}\n',
            "line 1, the first one: passage id is null or missing",
        ),
        ("a.jsonl", b'{"_id": "p1", "body": "a"}\n', "line 1, the first one: passage is null or missing"),
        ("a.jsonl", b"\np1\ta text\n", r"line 2, .*: not a row of this format. Write an object with _id and"),
        (
            "a.tsv",
            b"p1 a text\n",
            r"line 1, .*: not a row of this format. Write an id, a tab and a text on each",
        ),
        (
            "a.jsonl",
            b'[{"_id": "p1", "text": "a"},\n{"_id": "p2", "text": "b"}]\n',
            "as a JSON list of rows does",
        ),
    ],
)
def test_a_file_of_another_form_is_refused_as_a_whole(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    for read in (lambda path: texts(path, "p1"), lambda path: rejects(None, path)):
        with pytest.raises(InputError, match=rf"{name}: .*{message}"):
            read(tmp_path / name)


def test_what_no_line_may_be_ends_the_job(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(GOOD + b"\n" + GOOD)
    with pytest.raises(InputError, match=r"corpus.jsonl line 2: id 'p0' stands there a second time"):
        texts(path, "p0")
    assert texts(path, "p1") == {}
    path.write_bytes(GOOD + b"\n" + b"[" * 200 + b"]" * 200)
    with pytest.raises(InputError, match="corpus.jsonl line 2: it nests too deep"):
        texts(path, "p0")
    with pytest.raises(InputError, match="corpus.jsonl line 1: it is too long"):
        texts(path, "p0", limits=Limits(max_line_bytes=10))
