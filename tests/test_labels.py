from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.labels import label


@pytest.mark.parametrize("text", ["", "s3://bucket/run=1/a b#c%20?", "BAAI/bge-reranker-v2-m3"])
def test_ascii_stays_as_it_is(text: str) -> None:
    assert label(text) == text


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="%", exclude_categories=["Cs"])))
def test_any_text_becomes_printable_ascii_that_tells_it(text: str) -> None:
    made = label(text)
    assert made.isascii()
    assert made.isprintable()
    assert unquote(made) == text


def test_a_lone_surrogate_is_no_trace() -> None:
    assert label("\udcff") == "%ED%B3%BF"
