"""Texts to words: what BM25 counts."""

import pytest

from pipeline.retrieval.tokens import TokensConfig, tokenize

PLAIN = TokensConfig()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat's 3 naïve CATS_and dogs.", ["the", "cat", "s", "3", "naïve", "cats", "and", "dogs"]),
        ("ＢＭ２５ ﬁle", ["bm25", "file"]),
        ("大熊猫", ["大", "熊", "猫", "大熊", "熊猫"]),
        ("用Python写", ["用", "python", "写"]),
        ("スーパー", ["ス", "ー", "パ", "ー", "スー", "ーパ", "パー"]),
        ("한국어", ["한", "국", "어", "한국", "국어"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("İstanbul", ["istanbul"]),
        ("葛\U000e0100城", ["葛", "城", "葛城"]),
        ("hy\u00adphen\u00adated", ["hyphenated"]),
        ("", []),
        (" ?! _ \n", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert tokenize(text, PLAIN) == words


def test_stop_words_and_stemming_on_request() -> None:
    text = "The ponies were running into a hedge"
    assert tokenize(text, TokensConfig(stop_words="english")) == ["ponies", "were", "running", "hedge"]
    stemmed = ["the", "poni", "were", "run", "into", "a", "hedg"]
    assert tokenize(text, TokensConfig(stemming="english")) == stemmed
    assert tokenize("Häuser", TokensConfig(stemming="german")) == ["haus"]


def test_a_long_text_takes_no_longer_than_its_length() -> None:
    assert len(tokenize("词" * 100_000, PLAIN)) == 199_999
    assert len(tokenize("a" * 100_000, PLAIN)) == 1


def test_an_unknown_stemmer_is_refused() -> None:
    with pytest.raises(ValueError, match="needs one of arabic"):
        TokensConfig(stemming="klingon")
