"""Whether a difference between two runs is more than chance."""

import numpy as np
import numpy.typing as npt
from scipy.stats import permutation_test

_RESAMPLES = 10_000


def p_value(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> float:
    """Of the two-sided paired randomization test (Smucker, Allan, Carterette, CIKM 2007).

    Both hold a value a query, in the same order. The same values give the same number, always.
    """
    if np.array_equal(before, after):
        return 1.0
    test = permutation_test(
        (after, before),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=_RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)
