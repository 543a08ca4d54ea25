import numpy as np
import pytest
from scipy.stats import bootstrap, permutation_test

from pipeline.evaluation.significance import holm, intervals, p_values


def p_value(change: np.typing.NDArray[np.float64]) -> float:
    return p_values(change[:, None])[0]


def test_the_p_value_tells_chance_from_change() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 100)
    assert p_value(noise - noise.mean()) > 0.9
    assert p_value(noise - noise.mean() + 0.05) < 0.001
    assert p_value(np.zeros(100)) == 1.0


def test_few_queries_are_tried_in_all_ways() -> None:
    """By hand: of the eight ways to give 1, 2 and 4 signs, two have a sum as far from 0 as 7, four as 5."""
    assert p_value(np.array([1.0, 2.0, 4.0])) == 2 / 8
    assert p_value(np.array([-1.0, 2.0, 4.0])) == 4 / 8
    assert p_value(np.array([0.1, 0.2, -0.3])) == 1.0  # whose sum is not quite 0 in floats


@pytest.mark.parametrize("queries", [9, 60])
def test_p_values_are_scipys(queries: int) -> None:
    """Exact where all ways are tried; else as near as two samples of 10,000 are."""
    rng = np.random.default_rng(queries)
    changes = rng.normal(0.05, 0.2, (queries, 3))
    zero = np.zeros(queries)
    expected = [
        permutation_test(
            (change, zero),
            lambda a, b, axis: np.mean(a - b, axis=axis),
            permutation_type="samples",
            n_resamples=10_000,
            rng=np.random.default_rng(1),
        ).pvalue
        for change in changes.T
    ]
    assert p_values(changes) == pytest.approx(expected, abs=1e-12 if queries == 9 else 0.02)


def test_a_tests_number_does_not_depend_on_the_other_tests() -> None:
    changes = np.random.default_rng(0).normal(0.001, 0.1, (500, 2))
    alone = [p_values(changes[:, [column]])[0] for column in range(2)]
    assert p_values(changes) == alone


def test_holm_is_rs() -> None:
    """p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") in R."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_intervals_are_scipys_and_near_the_normal_ones() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, (400, 2))
    found = intervals(values)
    for column, interval in zip(values.T, found, strict=True):
        assert interval is not None
        expected = bootstrap((column,), np.mean, method="percentile", rng=np.random.default_rng(9))
        assert interval == pytest.approx(tuple(expected.confidence_interval), abs=1e-3)
        reach = 1.96 * column.std() / 20
        assert interval == pytest.approx((column.mean() - reach, column.mean() + reach), abs=1e-3)
    assert intervals(values) == found
    assert intervals(np.ones((5, 1))) == [(1.0, 1.0)]
    assert intervals(np.ones((1, 2))) == [None, None]
