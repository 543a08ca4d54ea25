import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.tables.input.beir import with_title, with_titles

texts = st.text(st.sampled_from("a é\u3000\t\n熊"), max_size=4)


@pytest.mark.parametrize(
    ("title", "expected"), [("Title", "Title body"), ("", "body"), (None, "body"), (" ", "body")]
)
def test_a_title_goes_before_its_text(title: str | None, expected: str) -> None:
    assert with_title(title, "body") == expected


def test_a_text_that_is_no_utf8_stays_as_it_is_for_cleaning() -> None:
    texts = pa.array([b"\xff", b"b ", None], pa.binary()).view(pa.string())
    joined = with_titles(pa.array(["a", "a", "a"]), texts)
    assert joined.view(pa.binary()).to_pylist() == [b"a \xff", b"a b", None]


@settings(deadline=None)
@given(st.lists(st.tuples(st.none() | texts, texts), max_size=5))
def test_a_column_of_texts_gets_what_each_gets(rows: list[tuple[str | None, str]]) -> None:
    titles, bodies = (pa.array([row[at] for row in rows], pa.string()) for at in (0, 1))
    assert with_titles(titles, bodies).to_pylist() == [with_title(title, text) for title, text in rows]


def test_a_title_alone_is_no_text() -> None:
    assert with_title("Title", None) is None
    assert with_titles(pa.array(["Title"]), pa.nulls(1, pa.string())).to_pylist() == [None]
