"""Whether differences between runs are more than chance, and how sure their means are."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_RESAMPLES = 10_000
_BLOCK_VALUES = 4_000_000
"""Random numbers that are held at once: memory stays the same for any number of queries."""

Values = npt.NDArray[np.float64]
Interval = tuple[float, float]


def p_values(changes: Values) -> list[float]:
    """Of the two-sided paired randomization test (Smucker, Allan, Carterette, CIKM 2007), a test a column.

    changes: a row a query, a column a test. Where so few queries changed sides that all ways to do so can be
    tried, all are; else 10,000 random ones and the one seen. The same values give the same numbers, always.
    """
    queries, tests = changes.shape
    rounding = 1e-12 * np.abs(changes).sum(axis=0)
    seen = np.abs(changes.sum(axis=0)) - rounding
    as_large, tried = np.zeros(tests), 0
    for signs in _signs(queries):
        as_large += (np.abs(signs @ changes) >= seen).sum(axis=0)
        tried += len(signs)
    return [float(count) / tried for count in as_large]


def _signs(queries: int) -> Iterator[Values]:
    """Rows of 1 and -1, a column a query, in blocks; the first row changes nothing."""
    if 2**queries <= _RESAMPLES:
        changed_sides = np.arange(2**queries)[:, None] >> np.arange(queries) & 1
        yield np.where(changed_sides == 1, -1.0, 1.0)
        return
    yield np.ones((1, queries))
    rng, block = np.random.default_rng(0), max(1, _BLOCK_VALUES // queries)
    for start in range(0, _RESAMPLES, block):
        flipped = rng.random((min(block, _RESAMPLES - start), queries)) < 0.5
        yield np.where(flipped, -1.0, 1.0)


def holm(p_values: list[float]) -> list[float]:
    """The same, corrected for the number of tests (Holm, Scandinavian Journal of Statistics, 1979)."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, test in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[test]))
        corrected[test] = largest
    return corrected


def intervals(values: Values) -> list[Interval | None]:
    """Of the mean of each column, 95 % of it, by the percentile bootstrap; None of a single query.

    values: a row a query. The same values give the same numbers, always.
    """
    queries, tests = values.shape
    if queries < 2:
        return [None] * tests
    ends = np.quantile(np.concatenate(list(_resampled_means(values))), (0.025, 0.975), axis=0)
    return [(float(low), float(high)) for low, high in ends.T]


def _resampled_means(values: Values) -> Iterator[Values]:
    """Of as many queries drawn with replacement, the same ones for every column; a row a resample."""
    queries = len(values)
    rng, block = np.random.default_rng(0), max(1, _BLOCK_VALUES // queries)
    for start in range(0, _RESAMPLES, block):
        resamples = min(block, _RESAMPLES - start)
        drawn = rng.integers(queries, size=(resamples, queries)) + queries * np.arange(resamples)[:, None]
        times = np.bincount(drawn.ravel(), minlength=resamples * queries).reshape(resamples, queries)
        yield times @ values / queries
