"""Which candidates are negatives, on lists made by hand."""

import random

import pytest
from pydantic import ValidationError

from pipeline.mining.config import NegativesConfig
from pipeline.mining.negatives import Candidate, Choice, choose

SCORES = (9.0, 8.0, 7.6, 7.0, 4.0, 4.0, 1.0, -3.0)
"""Of passages a, b, c, ... in the order of their ranks, from 1."""


def candidates(positives: str = "b", scores: tuple[float, ...] = SCORES) -> list[Candidate]:
    return [
        Candidate(name, f"text {name}", rank, score, name in positives)
        for rank, (name, score) in enumerate(zip("abcdefgh", scores, strict=False), start=1)
    ]


def chosen(of: list[Candidate], **options: object) -> Choice:
    config = NegativesConfig.model_validate({"ranks": [1, 100], "sampling": "top", **options})
    return choose("q", "the query", of, config)


def names(choice: Choice) -> str:
    return "".join(each.passage_id for each in choice.negatives)


@pytest.mark.parametrize(
    ("options", "negatives", "refused"),
    [
        ({}, "acdefgh", {}),
        ({"number": 3}, "acd", {}),
        ({"ranks": [3, 5]}, "cde", {"ranks": 4}),
        ({"ranks": [2, 2], "at_least": 1}, "", {"ranks": 7}),
        ({"absolute_margin": 0.4}, "cdefgh", {"margin": 1}),
        ({"absolute_margin": 0.5}, "defgh", {"margin": 2}),
        ({"relative_margin": 0.05}, "cdefgh", {"margin": 1}),
        ({"relative_margin": 0.06}, "defgh", {"margin": 2}),
        ({"max_score": 7, "min_score": 1}, "defg", {"max_score": 2, "min_score": 1}),
    ],
)
def test_window_margins_and_scores(
    options: dict[str, object], negatives: str, refused: dict[str, int]
) -> None:
    choice = chosen(candidates(), **options)
    assert (names(choice), choice.refused) == (negatives, refused)
    assert choice.reason == (None if negatives else "too_few_negatives")


def test_margins_hold_for_every_positive_of_the_row() -> None:
    choice = chosen(candidates("bd"), absolute_margin=1)
    assert [each.passage_id for each in choice.positives] == ["b", "d"]
    assert names(choice) == "efgh"


def test_a_relative_margin_below_a_negative_score_lies_below_it() -> None:
    of = candidates("a", (-2.0, -2.1, -2.3))
    assert names(chosen(of, relative_margin=0.1)) == "c"


def test_texts_come_once_and_never_beside_themselves() -> None:
    """Not a positive's text under another id, nor the query's own, nor one negative twice."""
    of = candidates()
    of[2] = of[2]._replace(passage="text b")
    of[3] = of[3]._replace(passage="the query")
    of[5] = of[5]._replace(passage="text e")
    choice = chosen(of)
    assert (names(choice), choice.refused) == ("aegh", {"same_text": 3})


def test_queries_that_no_trainer_could_use_are_left_out() -> None:
    assert chosen(candidates("")).reason == "no_positive"
    assert chosen(candidates(), at_least=8).reason == "too_few_negatives"
    assert chosen(candidates(), at_least=7).reason is None
    assert chosen([]).reason == "no_positive"


def test_a_random_choice_hangs_on_seed_and_ids_alone() -> None:
    of = candidates()
    first = names(chosen(of, sampling="random", number=3))
    assert len(first) == 3
    assert first == "".join(sorted(first)), "highest score first"
    shuffled = random.Random(0).sample(of, len(of))
    assert names(chosen(shuffled, sampling="random", number=3)) == first
    others = {names(chosen(of, sampling="random", number=3, seed=seed)) for seed in range(50)}
    assert len(others) > 10
    assert set("".join(others)) == set("acdefgh")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranks": [5, 3]}, r"ranks \[5, 3\]: the first one comes after the last"),
        ({"ranks": [0, 3]}, "greater than 0"),
        ({"at_least": 16}, "at_least 16: is more than number 15"),
        ({"min_score": 2, "max_score": 1}, "min_score 2.0: is above max_score 1.0"),
        ({"relative_margin": 5}, "less than or equal to 1"),
    ],
)
def test_bounds_without_room_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        NegativesConfig.model_validate(options)
