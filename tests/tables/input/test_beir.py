import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.tables.input.beir import json_texts, with_title, with_titles

texts = st.text(st.sampled_from("a é\u3000\t\n熊"), max_size=4)


@pytest.mark.parametrize(
    ("title", "expected"), [("Title", "Title body"), ("", "body"), (None, "body"), (" ", "body")]
)
def test_a_title_goes_before_its_text(title: str | None, expected: str) -> None:
    lines = [
        (
            1,
            b'{"_id": 7, "title": %s, "text": "body"}'
            % (b"null" if title is None else f'"{title}"'.encode()),
        )
    ]
    assert list(json_texts(lines, "corpus.jsonl")) == [(1, "7", expected)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.none() | texts, texts), max_size=5))
def test_a_column_of_texts_gets_what_each_gets(rows: list[tuple[str | None, str]]) -> None:
    titles, bodies = (pa.array([row[at] for row in rows], pa.string()) for at in (0, 1))
    assert with_titles(titles, bodies).to_pylist() == [with_title(title, text) for title, text in rows]


@pytest.mark.parametrize("line", [b"[]", b"", b'{"_id": "d"}', b'{"text": "t"}', b"\xff"])
def test_a_line_of_another_form_is_named(line: bytes) -> None:
    with pytest.raises(InputError, match="corpus.jsonl line 3: not an object with _id and text"):
        list(json_texts([(3, line)], "corpus.jsonl"))
