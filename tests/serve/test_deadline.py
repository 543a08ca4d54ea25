"""How long a request may take."""

import pytest

from serve.deadline import time_allowed
from serve.problems import Problem


@pytest.mark.parametrize(
    ("asked", "seconds", "told"),
    [
        (None, 60, "60 s"),
        ("2", 1.8, "2 s, less 0.2 s for the answer"),
        ("10", 9.75, "10 s, less 0.25 s for the answer"),
        ("60.1", 59.85, "60.1 s, less 0.25 s for the answer"),
        ("61", 60, "60 s"),
    ],
)
def test_the_client_is_told_what_it_asked_for(asked: str | None, seconds: float, told: str) -> None:
    allowed = time_allowed({} if asked is None else {"x-request-timeout-seconds": asked}, 60.0)
    assert allowed.seconds == pytest.approx(seconds)
    assert allowed.told == told


@pytest.mark.parametrize("asked", ["0", "-1", "nan", "inf", "soon", ""])
def test_what_is_no_positive_number_is_refused(asked: str) -> None:
    with pytest.raises(Problem, match="needs a positive number of seconds"):
        time_allowed({"x-request-timeout-seconds": asked}, 60.0)
