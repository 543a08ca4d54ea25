import numpy as np

from pipeline.evaluation.significance import p_value


def test_the_p_value_tells_chance_from_change() -> None:
    rng = np.random.default_rng(0)
    before, noise = rng.random(100), rng.normal(0, 0.1, 100)
    same, changed = (before + shift + noise - noise.mean() for shift in (0.0, 0.05))
    assert p_value(before, same) > 0.9
    assert p_value(before, changed) < 0.001
    assert p_value(before, before) == 1.0


def test_the_same_values_give_the_same_number() -> None:
    before, after = np.arange(8.0), np.arange(8.0) ** 1.1
    assert p_value(before, after) == p_value(before, after)
