"""SIGTERM and SIGINT as exceptions, so that a command ends with its last words said: a spot machine's notice,
`ray job stop`, a pod's end, Ctrl-C.

Python raises them wherever the main thread is, and not all code can bear that. A finalizer loses the
exception; pydantic, or a library's `finally`, makes another one of it. So what came is remembered. An error
that follows counts as the interrupt (`came`). A lost one is raised again before a job's next shard (`check`).
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

import pyarrow as pa


class Terminated(KeyboardInterrupt):
    """The process got SIGTERM."""


class _Process:
    remembers = False
    """As a command does, which ends by an interrupt; a program that calls a job may go on."""
    came: type[KeyboardInterrupt] | None = None


def raise_interrupts() -> None:
    """Raise Terminated or KeyboardInterrupt in the main thread from now on.

    Ray sets a handler of its own: call this after it. SIGINT stays ignored where it is, as in a shell's
    background job, and Python's where nothing is remembered.
    """
    if current_thread() is main_thread():
        # Its readers would take both signals while they read, and now and then lose one.
        pa.enable_signal_handlers(False)
        signal.signal(signal.SIGTERM, _raise)
        if _Process.remembers and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _raise)


def came(error: BaseException | None = None) -> type[KeyboardInterrupt] | None:
    """The interrupt for which the work ended with `error`: that is one itself, or came after one."""
    return type(error) if isinstance(error, KeyboardInterrupt) else _Process.came


def check() -> None:
    """Raise the interrupt that came and was lost, if one was."""
    if _Process.came is not None:
        raise _Process.came


def ignore() -> None:
    """Ignore both signals, until `heard` ends: an interrupted command still tells so, and ends its Ray."""
    if current_thread() is main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def heard() -> Iterator[None]:
    """Around the work of a command: interrupts are remembered. After it, signals do what they did before."""
    _Process.remembers, _Process.came = True, None
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        _Process.remembers, _Process.came = False, None
        if current_thread() is main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _raise(number: int, _frame: FrameType | None) -> None:
    interrupt = Terminated if number == signal.SIGTERM else KeyboardInterrupt
    if _Process.remembers:
        _Process.came = interrupt
    raise interrupt
