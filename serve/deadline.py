"""How long a request may take: what its header says, within the server's own limit."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from serve.problems import Problem

HEADER = "x-request-timeout-seconds"
"""Ray Serve's name. Its proxy heeds it too, with an answer that is no dialect's: ours must be earlier."""
_MARGIN = 0.1
"""Of the deadline, up to _MAX_MARGIN_S: a busy machine's event loop may be late by that."""
_MAX_MARGIN_S = 0.25


class TimeAllowed(NamedTuple):
    """How long the work may take."""

    seconds: float
    told: str
    """To the client, who asked for more: the answer needs some of it."""


def time_allowed(headers: Mapping[str, str], longest_s: float) -> TimeAllowed:
    """From now. Raises Problem for a header that is no positive number."""
    text = headers.get(HEADER)
    if text is None:
        return TimeAllowed(longest_s, f"{longest_s:g} s")
    try:
        wanted_s = float(text)
    except ValueError:
        wanted_s = math.nan
    if not (wanted_s > 0 and math.isfinite(wanted_s)):
        raise Problem("header", "X-Request-Timeout-Seconds: needs a positive number of seconds")
    margin_s = min(_MARGIN * wanted_s, _MAX_MARGIN_S)
    if wanted_s - margin_s >= longest_s:
        return TimeAllowed(longest_s, f"{longest_s:g} s")
    return TimeAllowed(wanted_s - margin_s, f"{wanted_s:g} s, less {margin_s:g} s for the answer")
