"""Texts embedded alone, as retrieval asks for it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer

from pipeline.errors import ConfigError, ScoringError
from pipeline.scoring import Scorer, ScorerConfig
from tests.conftest import MINILM, TINY

TEXTS = ["what is a panda?", "", "大熊猫", "what is a panda?", "The giant panda is a bear. " * 30]
AGREES = 1e-5


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(ScorerConfig(model=MINILM, device="cpu"))


def test_embeddings_are_those_of_sentence_transformers(scorer: Scorer) -> None:
    peer = SentenceTransformer(str(scorer.checkpoint.path), device="cpu").encode(TEXTS)
    embeddings = scorer.embed(TEXTS, "passage")
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, peer, atol=AGREES, rtol=0)
    assert embeddings[0].tobytes() == embeddings[3].tobytes()
    assert scorer.embed([], "query").shape == (0, peer.shape[1])


@pytest.mark.parametrize("instruction", [None, "Represent this sentence: "])
def test_the_inner_product_is_the_score(instruction: str | None) -> None:
    config = ScorerConfig(model=MINILM, device="cpu", query_instruction_for_retrieval=instruction)
    scorer, passages = Scorer(config), TEXTS[::-1]
    queries = scorer.embed(TEXTS, "query")
    products = (queries * scorer.embed(passages, "passage")).sum(axis=1)
    scores = scorer.score(list(zip(TEXTS, passages, strict=True)))
    np.testing.assert_allclose(products, scores, atol=AGREES, rtol=0)
    assert (np.abs(queries - scorer.embed(TEXTS, "passage")).max() > 0.01) == (instruction is not None)


def test_what_can_not_be_embedded_is_named(scorer: Scorer) -> None:
    with pytest.raises(ConfigError, match="the family sequence_classification scores pairs, it embeds no"):
        Scorer(ScorerConfig(model=TINY, device="cpu")).embed(TEXTS, "query")
    with pytest.raises(ConfigError, match="role 'document': a text is a query or a passage"):
        scorer.embed(TEXTS, "document")  # type: ignore[arg-type]
    with pytest.raises(ScoringError, match="^text 1: not a text: None"):
        scorer.embed(["a", None], "query")  # type: ignore[list-item]
    strict = Scorer(ScorerConfig(model=MINILM, device="cpu", truncation="error", max_length=8))
    with pytest.raises(ScoringError, match="^text 1: .* don't fit"):
        strict.embed(["a", "word " * 9], "passage")
    windows = ScorerConfig.model_validate({"model": MINILM, "long_passages": {"strategy": "max"}})
    with pytest.raises(ConfigError, match="^long_passages: "):
        Scorer(windows).embed(TEXTS, "passage")


def test_texts_may_come_in_anything_with_an_order(scorer: Scorer) -> None:
    embeddings = scorer.embed(TEXTS, "passage")
    for given in (iter(TEXTS), np.array(TEXTS), pd.Series(TEXTS, index=range(5, 0, -1))):
        assert scorer.embed(given, "passage").tobytes() == embeddings.tobytes()
    with pytest.raises(ConfigError, match=r"^texts: one text, 'a text'; write \[text\]$"):
        scorer.embed("a text", "query")
    table: Any = pd.DataFrame(TEXTS)
    with pytest.raises(ScoringError, match=r"^text 0: not a text: \['what is a panda\?'\]"):
        scorer.embed(table, "query")  # not the names of its columns


def test_windows_are_embedded_as_texts_of_their_own() -> None:
    options = {
        "model": MINILM,
        "device": "cpu",
        "long_passages": {"strategy": "max", "window": 3, "stride": 2},
    }
    windows = Scorer(ScorerConfig.model_validate(options)).embed_windows(
        ["one two three four", "one"], "passage"
    )
    assert windows.windows.tolist() == [2, 1]
    parts = Scorer(ScorerConfig(model=MINILM, device="cpu")).embed(
        ["one two three", "three four", "one"], "passage"
    )
    np.testing.assert_allclose(windows.embeddings, parts, atol=AGREES, rtol=0)
