"""What Prometheus makes of the endpoint's metrics."""

from bisect import bisect_left

import pytest

from serve.metrics import HISTOGRAMS


@pytest.mark.parametrize("requests", [1, 2])
def test_the_median_of_batches_of_few_requests_is_their_number(requests: int) -> None:
    """Prometheus takes it from the middle of the bucket in which all are."""
    _, boundaries = HISTOGRAMS["rayrank_batch_requests"]
    place = bisect_left(boundaries, requests)
    assert (boundaries[place - 1] + boundaries[place]) / 2 == requests
