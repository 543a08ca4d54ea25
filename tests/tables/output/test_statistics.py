from collections.abc import Sequence
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.tables.output.statistics import BINS, Distribution, RankChanges

numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


def distribution(values: Sequence[float]) -> Distribution:
    return Distribution.of(np.array(values, np.float32))


@settings(deadline=None)
@given(st.lists(st.lists(numbers, max_size=20), min_size=1, max_size=5), st.randoms())
def test_shards_add_up_to_what_one_shard_would_say(shards: list[list[float]], chance: Random) -> None:
    whole = distribution([value for shard in shards for value in shard])
    chance.shuffle(shards)
    summed = Distribution()
    for shard in shards:
        summed = summed.plus(Distribution.model_validate_json(distribution(shard).model_dump_json()))
    assert summed == whole
    assert whole.total == sum(map(len, shards))
    assert len(whole.counts) <= BINS


@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=50), st.floats(0, 1))
def test_a_quantile_is_within_a_bin_of_the_true_one(values: list[float], share: float) -> None:
    found = distribution(values).quantile(share)
    true = float(np.quantile(np.array(values, np.float64), share, method="inverted_cdf"))
    assert abs(found - true) <= distribution(values).width


def test_bins_are_as_fine_as_their_number_allows() -> None:
    assert distribution([0.0, 0.5, 0.999]).width == 1 / 128
    assert distribution([-12.0, 11.9]).width == 1 / 4
    assert distribution([3.0, 3.0]).counts == (2,)


def test_movement_is_counted_by_where_candidates_stood_and_stand() -> None:
    places, ranks = np.array([1, 2, 3, 4, 12]), np.array([2, 1, 3, 12, 4])
    rank_changes = RankChanges.of(places, ranks)
    assert (rank_changes.up, rank_changes.same, rank_changes.down, rank_changes.distance) == (2, 1, 2, 18)
    assert rank_changes.moves[0][1] == 1  # the first place came from place 2
    assert rank_changes.moves[2][4] == 1  # rank 4 from place 12
    assert rank_changes.stayed_in_top(1) == 0
    assert rank_changes.stayed_in_top(3) == 1
    assert rank_changes.stayed_in_top(10) == 3 / 4
    assert rank_changes.plus(rank_changes).moves[0][1] == 2
    assert rank_changes.plus(RankChanges()) == rank_changes


def test_places_behind_the_last_bin_count() -> None:
    rank_changes = RankChanges.of(np.array([1001, 50_000]), np.array([50_000, 1001]))
    assert rank_changes.moves[-1][-1] == rank_changes.total == 2
