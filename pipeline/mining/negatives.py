"""Pure: which candidates of one query are its negatives."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.mining.config import NegativesConfig

NO_POSITIVE, NO_SCORE, TOO_FEW = "no_positive", "no_score", "too_few_negatives"
REASONS = {
    NO_POSITIVE: "no candidate of the query is a positive",
    NO_SCORE: "the query's positives have no score",
    TOO_FEW: "fewer negatives than negatives.at_least were found",
}
"""Why a query has no training row."""


class Candidate(NamedTuple):
    passage_id: str
    passage: str
    rank: int
    score: float
    positive: bool


class Choice(NamedTuple):
    """Of one query. Both lists are empty where there is a reason to leave it out."""

    positives: list[Candidate]
    """Highest score first; so are the negatives."""
    negatives: list[Candidate]
    reason: str | None
    refused: dict[str, int]
    """Why candidates were no negatives, to how many: ranks, same_text, margin, min_score, max_score."""


def choose(query_id: str, query: str, candidates: list[Candidate], config: NegativesConfig) -> Choice:
    """The query's positives, and negatives for them. Whatever order the candidates come in."""
    in_order = sorted(candidates, key=lambda each: (-each.score, each.passage_id))
    positives = [each for each in in_order if each.positive]
    if not positives:
        return Choice([], [], NO_POSITIVE, {})
    refused: Counter[str] = Counter()
    texts = {query, *(each.passage for each in positives)}
    negatives = []
    for each in in_order:
        if each.positive:
            continue
        reason = next(_reasons(each, texts, positives[-1].score, config), None)
        if reason is None:
            negatives.append(each)
            texts.add(each.passage)
        else:
            refused[reason] += 1
    if len(negatives) < config.at_least:
        return Choice([], [], TOO_FEW, dict(refused))
    return Choice(positives, _some(query_id, negatives, config), None, dict(refused))


def _reasons(
    each: Candidate, texts: set[str], lowest_positive: float, config: NegativesConfig
) -> Iterator[str]:
    """Why a candidate is no negative. texts: those that are taken, and the query's own."""
    first, last = config.ranks
    if not first <= each.rank <= last:
        yield "ranks"
    if each.passage in texts:
        yield "same_text"
    if config.absolute_margin is not None and each.score > lowest_positive - config.absolute_margin:
        yield "margin"
    # A share of the score itself would lie above a score below 0, as logits are.
    if config.relative_margin is not None and (
        each.score > lowest_positive - abs(lowest_positive) * config.relative_margin
    ):
        yield "margin"
    if config.max_score is not None and each.score > config.max_score:
        yield "max_score"
    if config.min_score is not None and each.score < config.min_score:
        yield "min_score"


def _some(query_id: str, negatives: list[Candidate], config: NegativesConfig) -> list[Candidate]:
    """`number` of the negatives, in their order."""
    if config.sampling == "top" or len(negatives) <= config.number:
        return negatives[: config.number]

    def lot(each: Candidate) -> bytes:
        drawn = "\0".join((str(config.seed), query_id, each.passage_id))
        return hashlib.sha256(drawn.encode()).digest()

    drawn = set(sorted(negatives, key=lot)[: config.number])
    return [each for each in negatives if each in drawn]
