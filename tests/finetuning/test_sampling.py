from collections import Counter

import numpy as np

from pipeline.finetuning.sampling import Row, group_of, steps, total_steps

ROW = Row("q", ("p0", "p1"), ("n0", "n1", "n2"), (5.0, 6.0), (0.0, 1.0, 2.0), prompt="answer!")


def test_every_epoch_has_every_row_once_in_an_order_of_its_own() -> None:
    epochs: dict[int, list[int]] = {0: [], 1: []}
    sizes = []
    for epoch, numbers in steps(10, 4, 0, 6, seed=1):
        epochs[epoch] += map(int, numbers)
        sizes.append(len(numbers))
    assert sizes == [4, 4, 2, 4, 4, 2]
    assert sorted(epochs[0]) == sorted(epochs[1]) == [*range(10)]
    assert epochs[0] != epochs[1] != [*range(10)]


def test_who_goes_on_gets_the_same_rows() -> None:
    whole = [(epoch, list(numbers)) for epoch, numbers in steps(10, 4, 0, 9, seed=1)]
    for first in range(9):
        assert [(epoch, list(numbers)) for epoch, numbers in steps(10, 4, first, 9, seed=1)] == whole[first:]
    assert whole != [(epoch, list(numbers)) for epoch, numbers in steps(10, 4, 0, 9, seed=2)]


def test_steps_are_of_epochs_unless_they_are_given() -> None:
    assert total_steps(10, 4, epochs=2, max_steps=None) == 6
    assert total_steps(10, 4, epochs=2, max_steps=100) == 100


def test_a_group_is_a_positive_and_negatives_with_their_scores() -> None:
    group = group_of(ROW, 3, 0, 0, 7, with_scores=True)
    scores = dict(zip([*ROW.pos, *ROW.neg], [5.0, 6.0, 0.0, 1.0, 2.0], strict=True))
    assert group.passages[0] in ROW.pos
    assert len({*group.passages[1:]}) == 2
    assert group.scores == tuple(scores[passage] for passage in group.passages)
    assert (group.query, group.prompt) == ("q", "answer!")
    assert group_of(ROW, 3, 0, 0, 7, with_scores=True) == group
    assert group_of(ROW, 3, 0, 0, 7, with_scores=False).scores is None


def test_too_few_negatives_come_again_as_often_as_they_must() -> None:
    for number in range(20):
        negatives = Counter(group_of(ROW, 8, 0, 0, number, with_scores=False).passages[1:])
        assert set(negatives) == {*ROW.neg}  # 7 of 9: three times each, less two
        assert sum(negatives.values()) == 7
        assert max(negatives.values()) <= 3


def test_choices_vary_over_rows_and_epochs_and_are_even() -> None:
    chosen = Counter(
        group_of(ROW, 2, 0, epoch, number, with_scores=False).passages
        for epoch in range(10)
        for number in range(60)
    )
    assert len(chosen) == 6
    np.testing.assert_allclose(list(chosen.values()), 100, atol=40)
