"""SIGTERM as an exception, so that a command ends with its last words said: a spot machine's notice,
`ray job stop`, a pod's end.
"""

import signal
from threading import current_thread, main_thread
from types import FrameType


class Terminated(KeyboardInterrupt):
    """The process got SIGTERM."""


def raise_on_sigterm() -> None:
    """Raise Terminated in the main thread from now on. Ray sets a handler of its own: call this after it."""
    if current_thread() is main_thread():
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated
