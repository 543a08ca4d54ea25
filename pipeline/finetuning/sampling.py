"""Pure: which row comes when, and which of its passages make a group. All follows from seed, epoch and row.

So that a job which goes on needs no more than the number of its step.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_ORDER, _CHOICE, _DROPOUT = 0, 1, 2
"""What a random stream is for, beside the seed."""


@dataclass(frozen=True)
class Row:
    """A row of training data that was found to be one. `scores` go with the passages; see examples.py."""

    query: str
    pos: tuple[str, ...]
    neg: tuple[str, ...]
    pos_scores: tuple[float, ...] | None = None
    neg_scores: tuple[float, ...] | None = None
    query_prompt: str | None = None
    passage_prompt: str | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class Group:
    """A query with passages, the positive first, and the teacher's scores of them where a loss needs them."""

    query: str
    passages: tuple[str, ...]
    scores: tuple[float, ...] | None = None
    query_prompt: str | None = None
    passage_prompt: str | None = None
    prompt: str | None = None


def total_steps(rows: int, groups_per_step: int, epochs: int, max_steps: int | None) -> int:
    """Steps of the whole training. An epoch's last step may have fewer groups than the others."""
    return max_steps or epochs * steps_per_epoch(rows, groups_per_step)


def steps_per_epoch(rows: int, groups_per_step: int) -> int:
    return math.ceil(rows / groups_per_step)


def steps(
    rows: int, groups_per_step: int, first: int, stop: int, seed: int
) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """(epoch, rows) of the steps from `first` to before `stop`, both numbered from 0 over all epochs."""
    in_epoch, order = steps_per_epoch(rows, groups_per_step), np.zeros(0, np.int64)
    for step in range(first, stop):
        epoch, place = divmod(step, in_epoch)
        if place == 0 or step == first:
            order = np.random.default_rng([seed, _ORDER, epoch]).permutation(rows)
        yield epoch, order[place * groups_per_step : (place + 1) * groups_per_step]


def seed_of(seed: int, step: int, rank: int) -> int:
    """Of what is drawn while one worker does a step: dropout."""
    return int(np.random.SeedSequence([seed, _DROPOUT, step, rank]).generate_state(1, np.uint64)[0])


def group_of(row: Row, size: int, seed: int, epoch: int, number: int, *, with_scores: bool) -> Group:
    """The group of row `number` in an epoch: one of its positives, and size - 1 of its negatives.

    Negatives are drawn without replacement, of as many copies of the list as it takes (FlagEmbedding 1.4.2,
    abc/finetune/reranker/AbsDataset.py).
    """
    random = np.random.default_rng([seed, _CHOICE, epoch, number])
    positive = int(random.integers(len(row.pos)))
    copies = max(1, math.ceil((size - 1) / len(row.neg)))
    drawn = random.choice(len(row.neg) * copies, size - 1, replace=False) % len(row.neg)
    scores = None
    if with_scores:
        assert row.pos_scores is not None
        assert row.neg_scores is not None
        scores = (row.pos_scores[positive], *(row.neg_scores[one] for one in drawn))
    return Group(
        row.query,
        (row.pos[positive], *(row.neg[one] for one in drawn)),
        scores,
        row.query_prompt,
        row.passage_prompt,
        row.prompt,
    )
