"""Losses against values that numpy computes from their formulas."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.finetuning import losses
from pipeline.finetuning.config import LossConfig

Floats = npt.NDArray[np.float64]
SCORES = np.array([[2.0, 0.5, -1.0], [0.0, 1.0, 3.0]])
TEACHER = np.array([[3.0, 1.0, 0.0], [2.0, 0.0, -1.0]])


def log_softmax(values: Floats) -> Floats:
    return np.asarray(values - np.log(np.exp(values).sum(axis=-1, keepdims=True)))


def tensor(values: Floats) -> torch.Tensor:
    return torch.tensor(values, requires_grad=True)


def loss_of(teacher: Floats | None = TEACHER, scores: Floats = SCORES[:, :, None], **config: Any) -> float:
    given = None if teacher is None else torch.tensor(teacher)
    return losses.objective(tensor(scores), given, LossConfig(**config)).item()


HARD = -log_softmax(SCORES)[:, 0].mean()
SOFT = -(np.exp(log_softmax(TEACHER)) * log_softmax(SCORES)).sum(axis=-1).mean()
DISTANCES = [1.5 - 2.0, 3.0 - 3.0, -1.0 - 2.0, -3.0 - 3.0]
"""Of the margins over the second and the third passage, the scores' less the teacher's."""


def test_cross_entropy_is_of_the_positive_among_its_group() -> None:
    by_hand = math.log(1 + math.exp(-1.5) + math.exp(-3)) + math.log(1 + math.exp(1) + math.exp(3))
    assert loss_of(None) == pytest.approx(by_hand / 2)
    assert pytest.approx(by_hand / 2) == HARD


def test_binary_cross_entropy_is_of_each_pair_alone() -> None:
    signs = np.array([[-1, 1, 1], [-1, 1, 1]])
    expected = np.log1p(np.exp(signs * SCORES)).mean()
    assert loss_of(None, name="binary_cross_entropy") == pytest.approx(expected)


def test_flag_embeddings_distillation_comes_on_top_of_the_cross_entropy() -> None:
    assert loss_of(knowledge_distillation=True) == pytest.approx(HARD + SOFT)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_kl_divergence_is_of_both_softmaxes_at_a_temperature(temperature: float) -> None:
    teacher, student = log_softmax(TEACHER / temperature), log_softmax(SCORES / temperature)
    divergence = (np.exp(teacher) * (teacher - student)).sum(axis=-1).mean() * temperature**2
    assert loss_of(name="kl_divergence", temperature=temperature) == pytest.approx(divergence)
    shared = loss_of(name="kl_divergence", temperature=temperature, weight=0.3)
    assert shared == pytest.approx(0.3 * divergence + 0.7 * HARD)


def test_mse_is_of_raw_scores_and_margin_mse_of_their_distances() -> None:
    assert loss_of(name="mse") == pytest.approx(((SCORES - TEACHER) ** 2).mean())
    assert loss_of(name="margin_mse") == pytest.approx(np.mean(np.square(DISTANCES)))
    assert loss_of(name="margin_mse", teacher=TEACHER + 7) == pytest.approx(np.mean(np.square(DISTANCES)))


def test_listnet_is_the_cross_entropy_of_the_labels_softmax() -> None:
    assert loss_of(name="listnet") == pytest.approx(SOFT)


def test_lambdarank_weighs_each_swap_by_what_it_changes_in_ndcg() -> None:
    labels, scores = np.array([[2.0, 0.0, 1.0]]), np.array([[0.5, 1.0, 0.0]])
    gains, discounts = [3, 0, 1], [1 / math.log2(3), 1.0, 0.5]  # ranks 2, 1, 3
    ideal = 3 + 1 / math.log2(3)
    expected = sum(
        abs((gains[i] - gains[j]) * (discounts[i] - discounts[j]))
        / ideal
        * math.log2(1 + math.exp(-(scores[0, i] - scores[0, j])))
        for i, j in [(0, 1), (0, 2), (2, 1)]
    )
    assert loss_of(labels, scores[:, :, None], name="lambdarank") == pytest.approx(expected)
    assert loss_of(np.ones((1, 3)), scores[:, :, None], name="lambdarank") == 0
    # Of gains past float32 the highest alone count: 2^300 beside 2^299 is 2 beside 1 without the -1.
    high = loss_of(labels + 300, scores[:, :, None], name="lambdarank")
    higher = loss_of(labels + 1000, scores[:, :, None], name="lambdarank")
    assert 0 < high == pytest.approx(higher)


def test_of_several_heads_the_last_teaches_the_others_where_there_is_no_teacher() -> None:
    heads = np.stack([SCORES, SCORES[:, ::-1] / 2], axis=-1)
    first, last = log_softmax(heads[:, :, 0]), log_softmax(heads[:, :, 1])
    hard = -(first[:, 0] + last[:, 0]).mean()
    assert loss_of(None, heads) == pytest.approx(hard - (np.exp(last) * first).sum(axis=-1).mean())
    teacher = np.exp(log_softmax(TEACHER))
    taught = hard - (teacher * (first + last)).sum(axis=-1).mean()
    assert loss_of(scores=heads, knowledge_distillation=True) == pytest.approx(taught)


def test_the_last_head_learns_nothing_from_those_it_teaches() -> None:
    heads = tensor(np.stack([SCORES, SCORES], axis=-1))
    losses.objective(heads, None, LossConfig()).backward()  # type: ignore[no-untyped-call]
    alone = tensor(SCORES)
    losses.cross_entropy(alone).backward()  # type: ignore[no-untyped-call]
    assert heads.grad is not None
    assert alone.grad is not None
    np.testing.assert_allclose(heads.grad[:, :, 1], alone.grad)
