"""One training row, as FlagEmbedding has them: is it one to train on?"""

from dataclasses import replace
from typing import Any

from pipeline.finetuning.sampling import Row
from pipeline.tables.input.training_row import SIDES, candidates_of, is_text

PROMPTS = ("query_prompt", "passage_prompt", "prompt")


def checked_row(fields: Any, *, with_scores: bool) -> Row | str:
    """The row that parsed JSON holds, or why it is none: one of `schema.REASONS`.

    with_scores: it needs a score for each of its passages.
    """
    if not isinstance(fields, dict):
        return "malformed_row"
    passages = candidates_of(fields)
    if isinstance(passages, str):
        return passages
    prompts: dict[str, Any] = {name: fields[name] for name in PROMPTS if fields.get(name) is not None}
    if not all(map(is_text, prompts.values())):
        return "invalid_text"
    row = Row(fields["query"], tuple(fields["pos"]), tuple(fields["neg"]), **prompts)
    if not with_scores:
        return row
    if any(each["score"] is None for each in passages):
        return "no_scores"
    scores = {side: tuple(map(float, fields[f"{side}_scores"])) for side in SIDES}
    return replace(row, pos_scores=scores["pos"], neg_scores=scores["neg"])


def same_query(text: str) -> str:
    """The same for two queries that differ in case and white space alone."""
    return " ".join(text.split()).casefold()
