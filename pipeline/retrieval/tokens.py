"""Pure: texts to the words that BM25 counts, the same for passages and queries.

Where scripts put blanks between words, a word is a run of letters, marks and digits, in lower case. Chinese,
Japanese and Korean texts give each character and each pair of neighbours, since nothing in them tells where a
word ends. Texts are normalized first (NFKC): ｆｕｌｌ width letters are letters.
"""

import unicodedata
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import regex
import Stemmer
from pydantic import BaseModel, ConfigDict, field_validator

_CJK = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}ー々"
_RUN = regex.compile(rf"(?P<cjk>[{_CJK}]+)|(?:(?![{_CJK}])[\p{{L}}\p{{M}}\p{{N}}])+")
_UNSEEN = regex.compile(r"\p{Variation_Selector}|\u00ad")
"""Which glyph is meant, and where a word may be hyphenated: no part of a word."""
_DOTTED_I = "i\u0307"
"""What Python makes of Turkish İ in lower case; Java, and so Lucene, makes it i."""
_STEMMERS = tuple(Stemmer.algorithms())

_ENGLISH = """a an and are as at be but by for if in into is it no not of on or such that the their then there
these they this to was will with"""
STOP_WORDS = frozenset(_ENGLISH.split())
"""Lucene's, of English (EnglishAnalyzer.ENGLISH_STOP_WORDS_SET)."""


class TokensConfig(BaseModel):
    """What counts as a word, and as the same word."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    stop_words: Literal["english"] | None = None
    """Words that are left out. Null: none."""
    stemming: str | None = None
    """One of Snowball's stemmers: english, german, french, ... Null: words as they stand."""

    @field_validator("stemming")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        if value is not None and value not in _STEMMERS:
            raise ValueError(f"needs one of {', '.join(_STEMMERS)}")
        return value


def tokenize(text: str, config: TokensConfig) -> list[str]:
    """The words of a text, in order; those that come several times are there as often."""
    stem = None if config.stemming is None else _stemmer(config.stemming).stemWord
    words: list[str] = []
    plain = _UNSEEN.sub("", unicodedata.normalize("NFKC", text)).lower().replace(_DOTTED_I, "i")
    for run in _RUN.finditer(plain):
        word = run[0]
        if run["cjk"]:
            words += word
            words += map("".join, pairwise(word))
        elif not (config.stop_words and word in STOP_WORDS):
            words.append(word if stem is None else stem(word))
    return words


@lru_cache(maxsize=1)
def _stemmer(name: str) -> Stemmer.Stemmer:
    return Stemmer.Stemmer(name)
