"""docs/models.md: its code runs, and its tables say what the code has."""

import re
from typing import Any

import pytest

from pipeline.scoring import ScorerConfig
from pipeline.scoring.family import all_families
from pipeline.verification.checks import _PUBLISHED_TOLERANCE
from pipeline.verification.published import APPLE, BARE, BERLIN, CAPITALS, PANDA, PUBLISHED
from tests.conftest import ROOT, TINY

TEXT = (ROOT / "docs/models.md").read_text()
NAMES = re.compile(r"`(\w+)`")


def rows_below(head: str) -> list[list[str]]:
    """The cells of the table that begins with this line."""
    lines = TEXT.partition(f"{head}\n")[2].partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_code_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        exec(code.replace("BAAI/bge-reranker-v2-m3", TINY), names)
    assert names["by_layer"].shape == (2, 2)


def test_the_table_of_published_scores_is_what_verify_compares_with() -> None:
    told = rows_below("| bge-reranker- | q, p | F, f | F, c | C, f | C, c | P, h | P, b | options |")
    others = rows_below(
        "| cross-encoder/ | Berlin's population | Berlin's museums | Apple Inc. | the Fuji apple |"
    )
    assert [*(f"bge-reranker-{name}" for name, *_ in told), *(name for name, *_ in others)] == list(PUBLISHED)
    for name, *cells in others:
        shown = zip([*BERLIN, *APPLE], cells, strict=True)
        by_pair = dict(zip(PUBLISHED[name].pairs, PUBLISHED[name].scores, strict=True))
        assert {pair: float(cell) for pair, cell in shown if cell} == by_pair
        assert PUBLISHED[name].owner == "cross-encoder"
    for name, *cells, options in told:
        published = PUBLISHED[f"bge-reranker-{name}"]
        scores = [float(cell) for cell in cells if cell]
        pairs = [pair for pair, cell in zip([*BARE, *CAPITALS, *PANDA], cells, strict=True) if cell]
        by_pair = dict(zip(published.pairs, published.scores, strict=True))
        assert dict(zip(pairs, scores, strict=True)) == by_pair
        expected = (
            f"`{name}: {[*value] if isinstance(value, tuple) else value}`"
            for name, value in published.options.items()
        )
        assert options == ", ".join(expected)
    assert _PUBLISHED_TOLERANCE == {"float32": 0.03, "float16": 0.03, "bfloat16": 0.3, "int8": 0.3}


def test_each_familys_options_are_told() -> None:
    families = all_families()
    told: dict[str, set[str]] = {name: set() for name in families}
    for options, where in rows_below("| option | families |"):
        named = set(NAMES.findall(where))
        for family in families.keys() - named if where.startswith("all but") else named:
            told[family] |= set(NAMES.findall(options))
    assert told == {name: set(family.OPTIONS - {"truncation"}) for name, family in families.items()}
    assert set.union(*told.values()) <= ScorerConfig.model_fields.keys()
