"""What a warm-up by fusion gives a query of a pool."""

import random

import numpy as np
import pytest

from benchmarks.pools import LEVELS
from benchmarks.warm_up_fusion import CUTS, POOL, from_pool

SOURCE = 7


def test_passages_of_a_pool_have_their_numbers_and_the_sum_of_both_scores_the_best_first() -> None:
    drawn = np.random.default_rng(3)
    near, shared = (drawn.random(POOL + 50).astype(np.float32) for _ in range(2))
    near[SOURCE] = shared[SOURCE] = 0
    passages = [f"passage {at}" for at in range(POOL + 50)]
    given, fused = from_pool(passages, SOURCE, near.copy(), shared.copy(), random.Random(3))
    numbers, ids = zip(*(map(int, text.split(" passage ")) for text in given), strict=True)
    pool = np.sort(shared)[-POOL:]
    assert len({*ids}) == len(CUTS) == len(fused)
    assert SOURCE not in ids
    between = (shared[[*ids]] - pool.min()) / (pool.max() - pool.min())
    np.testing.assert_allclose(numbers, between * LEVELS, atol=0.5)
    cosines = near[shared >= pool.min()]
    others = (near[[*ids]] - cosines.min()) / (cosines.max() - cosines.min())
    np.testing.assert_allclose(fused, between + others, rtol=1e-5)
    assert [*fused] == sorted(fused, reverse=True)


def test_a_query_s_own_passage_is_in_no_pool_even_where_no_passage_shares_a_word() -> None:
    passages = [f"passage {at}" for at in range(POOL + 1)]
    near, shared = np.linspace(1, 0, POOL + 1, dtype=np.float32), np.zeros(POOL + 1, np.float32)
    for seed in range(40):
        given, _ = from_pool(passages, SOURCE, near, shared, random.Random(seed))
        assert given[0] == f"{LEVELS} passage 0"
        assert f"{LEVELS} passage {SOURCE}" not in given


def test_too_few_passages_for_a_pool_are_refused() -> None:
    scores = np.zeros(POOL, np.float32)
    with pytest.raises(ValueError, match="has 100 passages: a query's own and a pool of 100 need 101"):
        from_pool(["x"] * POOL, SOURCE, scores, scores, random.Random(3))
