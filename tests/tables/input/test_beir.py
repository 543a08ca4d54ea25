import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.tables.input.beir import json_texts, with_title, with_titles
from pipeline.tables.input.limits import DEFAULT_LIMITS

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
    assert list(json_texts(lines, "corpus.jsonl", DEFAULT_LIMITS)) == [(1, "7", expected)]


def test_a_text_that_is_no_utf8_stays_as_it_is_for_cleaning() -> None:
    texts = pa.array([b"\xff", b"b ", None], pa.binary()).view(pa.string())
    joined = with_titles(pa.array(["a", "a", "a"]), texts)
    assert joined.view(pa.binary()).to_pylist() == [b"a \xff", b"a b", None]


@settings(deadline=None)
@given(st.lists(st.tuples(st.none() | texts, texts), max_size=5))
def test_a_column_of_texts_gets_what_each_gets(rows: list[tuple[str | None, str]]) -> None:
    titles, bodies = (pa.array([row[at] for row in rows], pa.string()) for at in (0, 1))
    assert with_titles(titles, bodies).to_pylist() == [with_title(title, text) for title, text in rows]


@pytest.mark.parametrize("line", [b"[]", b"", b'{"_id": "d"}', b'{"text": "t"}', b"\xff"])
def test_a_line_of_another_form_is_named(line: bytes) -> None:
    with pytest.raises(InputError, match="corpus.jsonl line 3: not an object with _id and text"):
        list(json_texts([(3, line)], "corpus.jsonl", DEFAULT_LIMITS))


@pytest.mark.parametrize("text_id", ["null", "1.0", "true", "[1]", '{"a": 1}'])
def test_an_id_that_is_no_text_or_integer_is_named(text_id: str) -> None:
    line = b'{"_id": %s, "text": "t"}' % text_id.encode()
    with pytest.raises(InputError, match="corpus.jsonl line 3: _id is .*; a text or an integer is needed"):
        list(json_texts([(3, line)], "corpus.jsonl", DEFAULT_LIMITS))


def test_an_integer_id_is_found_by_all_its_digits() -> None:
    line = b'{"_id": 123456789012345678901234567890, "text": "t"}'
    assert list(json_texts([(1, line)], "x", DEFAULT_LIMITS)) == [(1, "123456789012345678901234567890", "t")]


@pytest.mark.parametrize("value", [None, 5, 0, False, ["a"], {"a": "b"}])
def test_a_text_that_is_none_never_becomes_one(value: object) -> None:
    assert with_title("Title", value) == value
    if value is not None:
        assert with_title(value, "text") == value
