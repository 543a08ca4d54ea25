"""Whether anybody still waits for the scores that are being computed: asked between two batches.

Set in the thread that computes, so that no model need pass it on.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class NotWantedError(Exception):
    """Nobody waits for the scores any more: the rest of them was not computed."""


_wanted: ContextVar[Callable[[], bool]] = ContextVar("wanted", default=lambda: True)


@contextmanager
def while_wanted(wanted: Callable[[], bool]) -> Iterator[None]:
    """Scores that are computed inside are given up, with NotWantedError, once `wanted` says no."""
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


def check_wanted() -> None:
    """Raises NotWantedError where nobody waits for what this thread computes."""
    if not _wanted.get()():
        raise NotWantedError
