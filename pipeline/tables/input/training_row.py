"""A row of FlagEmbedding's training data, https://github.com/FlagOpen/FlagEmbedding: an object with query,
pos and neg (lists of texts), and where a teacher scored them pos_scores and neg_scores.

A row that it could not train on is refused, and refused whole, by whatever reads rows: it divides by zero
where neg is empty, fails where pos is, or where a text is null, as sentence-transformers does, and takes a
score by its passage's place in the list.
"""

from itertools import chain, repeat
from typing import Any

from pipeline.tables.input.cleaning import is_unicode

QUERY = "query"
SIDES = {"pos": 1, "neg": 0}
"""The lists, each with the label of its passages."""
_LARGEST = 3.4e38
"""Scores are float32."""
_NONE_OF = {"pos": "no_positives", "neg": "no_negatives"}


def candidates_of(row: dict[str, Any]) -> list[dict[str, Any]] | str:
    """The row's passages, pos before neg, or the reason to refuse the row.

    Each has `passage_id` (pos:1, pos:2, ..., neg:1, ...), `passage` (a text), `label` (1 for pos, 0 for neg)
    and `score` (the given one, null where the row has none).
    """
    if row.get(QUERY) is None:
        return "null_query"
    candidates = []
    for side, label in SIDES.items():
        passages, given = row.get(side), row.get(f"{side}_scores")
        if not (isinstance(passages, list) and passages):
            return _NONE_OF[side]
        if given is not None and not _is_scores(given, len(passages)):
            return "invalid_scores"
        scores = repeat(None) if given is None else given
        candidates += [
            {"passage_id": f"{side}:{place}", "passage": passage, "label": label, "score": score}
            for place, (passage, score) in enumerate(zip(passages, scores, strict=False), start=1)
        ]
    passages = [each["passage"] for each in candidates]
    if None in passages:
        return "null_passage"
    return candidates if all(map(is_text, chain([row[QUERY]], passages))) else "invalid_text"


def is_text(value: object) -> bool:
    """Also false of a text that is no Unicode."""
    return isinstance(value, str) and is_unicode(value)


def _is_scores(given: object, length: int) -> bool:
    return isinstance(given, list) and len(given) == length and all(map(_is_score, given))


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
