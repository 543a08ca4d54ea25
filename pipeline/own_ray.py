"""A Ray of this process's own, which ends with it: started when it is needed, or early, beside other work.

Its start takes seconds, most of which it waits for processes of its own.
"""

import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from pipeline import log

_SILENT = "fatal"
"""RAY_BACKEND_LOG_LEVEL."""
_SPILLS_INTO = "RAY_object_spilling_directory"
_RAYLET_CONNECTS = {
    "RAY_raylet_client_connect_timeout_milliseconds": "100",
    "RAY_raylet_client_num_connect_attempts": "100",
}
"""A raylet begins its object store in a thread and connects to it. Half of the time the thread is a moment
too late, and the raylet sleeps before it tries again: by default for a second, up to ten times."""


class _Early:
    """A start that goes on in a thread; Ray itself says nothing on the terminal meanwhile."""

    def __init__(self) -> None:
        self._outcome: Future[None] = Future()
        self._silence = ExitStack()
        _keep_python_heard()
        self._silence.enter_context(_quiet_backend())
        Thread(target=self._work, name="start of Ray", daemon=True).start()

    def _work(self) -> None:
        try:
            _init()
        except BaseException as error:  # raised where the start is waited for
            self._outcome.set_exception(error)
        else:
            self._outcome.set_result(None)
            # Linux ends Ray's processes with the thread that started them.
            Event().wait()

    def wait(self) -> None:
        with self._silence:
            self._outcome.result()


class _Starts:
    """Of this process."""

    early: _Early | None = None
    begun = False
    spilled: Path | None = None
    """The folder for objects that memory has no room for, once it has started."""


def start_early() -> None:
    """Begin to start it, while this thread does other things. `start` then waits for it.

    Only for a process that ends with `command.leave`: a start that has begun ends with it alone.
    """
    assert _Starts.early is None
    _Starts.early, _Starts.begun = _Early(), True


def is_starting() -> bool:
    """Whether a start has begun that nobody has waited for yet."""
    return _Starts.early is not None


def has_begun() -> bool:
    """Whether a start has begun in this process: its Ray may run."""
    return _Starts.begun


def end_at_once() -> None:
    """End all processes below this one, which ends right after: those of its Ray, or of a start of it.

    Linux ends those that this one began, but not Ray's agents below them, which stay for a minute. What its
    Ray had spilled to disk is removed, as Ray does when it ends by itself.
    """
    found = set[int]()
    while new := _descendants() - found:
        for process in new:  # what stands still makes no others
            _send(process, signal.SIGSTOP)
        found |= new
    for process in found:
        _send(process, signal.SIGKILL)
    if _Starts.spilled is not None:
        shutil.rmtree(_Starts.spilled, ignore_errors=True)


def _descendants() -> set[int]:
    parents = dict[int, int]()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it is gone
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    found, below = set[int](), {os.getpid()}
    while below:
        below = {process for process, parent in parents.items() if parent in below}
        found |= below
    return found


def _send(process: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)


def start() -> None:
    """Start it, or wait for the start that has begun. Raises what `ray.init` raises."""
    early, _Starts.early = _Starts.early, None
    _Starts.begun = _is_own()
    if early is not None:
        early.wait()
        return
    with _quiet_backend():
        _init()


def _is_own() -> bool:
    return os.environ.get("RAY_ADDRESS") != "auto"  # which joins a Ray of others


def _init() -> None:
    import ray  # noqa: PLC0415  (who starts none does not wait for it: every command imports this module)

    if not any(name in os.environ for name in _RAYLET_CONNECTS):
        os.environ.update(_RAYLET_CONNECTS)
    # The dashboard takes eight processes and seconds of a start; who wants it starts a cluster.
    context: Any = ray.init(log_to_driver=False, logging_level=logging.CRITICAL, include_dashboard=False)
    if _is_own():
        told = context.address_info
        folder = os.environ.get(_SPILLS_INTO) or told["session_dir"]
        _Starts.spilled = Path(folder, f"ray_spilled_objects_{told['node_id']}")


@contextmanager
def _quiet_backend() -> Iterator[None]:
    """Silence Ray's C++ parts, unless RAY_BACKEND_LOG_LEVEL asks for them.

    They would print an error at each start of an actor (ray issue 53727), and at this level just say that
    they are at this level.
    """
    # It stays in the environment: a process that this one starts, or its own next job, finds it there.
    if os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", _SILENT) != _SILENT:
        yield
        return
    terminal = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def _keep_python_heard() -> None:
    """What Python writes to standard error goes to the terminal also while Ray's C++ parts are silenced.

    For good, since a library that is imported meanwhile may keep the stream.
    """
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace", closefd=False)
    log.write_to(sys.stderr)
