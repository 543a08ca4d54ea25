import numpy as np
import pytest

from benchmarks.scaling import steady_state


def test_speed_is_that_of_the_shards_that_ended() -> None:
    """Two actors, of 2 s a shard whatever was asked for, one of which waits as long again after each."""
    always = np.array([[2 * shard, 2 * shard + 2] for shard in range(8)], np.float64)
    half = np.array([[4 * shard, 4 * shard + 2] for shard in range(4)], np.float64)
    found = steady_state([always, half], 1)
    assert found.shards_per_s == pytest.approx((6 + 3) / 12)
    assert found.device_share == pytest.approx((1 + 1 / 2) / 2)
    with pytest.raises(SystemExit, match="more --shards are needed"):
        steady_state([always, half], 4)
