"""What the dialects' tests compare with: a Scorer of the same checkpoint. And bodies that are no JSON."""

from functools import cache
from typing import Any

import pytest

from pipeline.scoring import Scorer, ScorerConfig
from tests.conftest import TINY

QUERY = "what is a panda?"
LONG = "panda " * 400 + "bamboo " * 400
PASSAGES = ["hi", "The giant panda is a bear.", "", "Pandas eat bamboo.", "hi", LONG]
"""Two are equal, one is empty, one is too long for the model."""


@cache
def scorer(**options: Any) -> Scorer:
    return Scorer(ScorerConfig(**{"model": TINY, "device": "cpu"} | options))


def scores(query: str = QUERY, passages: list[str] = PASSAGES, **options: Any) -> Any:
    """By index, within what float32 in batches of other shapes may differ by."""
    values = scorer(**options).score([(query, passage) for passage in passages])
    return pytest.approx({index: float(score) for index, score in enumerate(values)}, abs=1e-5)


def tokens(query: str = QUERY, passages: list[str] = PASSAGES, **options: Any) -> int:
    """That go through the model."""
    return int(scorer(**options).encode([(query, passage) for passage in passages]).tokens.sum())


NO_JSON = [
    pytest.param(body, id=name)
    for name, body in {
        "cut short": b'{"query": "a", ',
        "empty": b"",
        "NaN": b'{"query": NaN}',
        "Infinity": b'{"query": -Infinity}',
        "single quotes": b"{'query': 1}",
        "two values": b"{} {}",
        "invalid UTF-8": b'{"query": "\xff"}',
        "UTF-16": '{"query": "a"}'.encode("utf-16"),
        "lone surrogate": b'{"query": "\\ud800"}',
        "nesting bomb": b"[" * 1000,
        "nested in what is ignored": b'{"ignored": ' + b"[" * 1000 + b"]" * 1000 + b"}",
        "a number of 5000 digits": b'{"top_n": ' + b"9" * 5000 + b"}",
    }.items()
]
NO_OBJECT = [b"[]", b"null", b"1", b'"query"', b"true"]
