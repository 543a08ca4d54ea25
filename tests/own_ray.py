"""A Ray that nothing else on the machine joins, and that joins nothing."""

import logging
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray


@contextmanager
def folder_of_its_own() -> Iterator[Path]:
    """For RAY_TMPDIR. A short path: Ray keeps its sockets there, whose paths end at 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def environment(folder: Path) -> dict[str, str]:
    """Local Rays ask for no token here: they listen on this machine alone."""
    return {"RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "disabled"}


@contextmanager
def own_ray(**options: Any) -> Iterator[None]:
    """This process's, with `options` of ray.init."""
    with folder_of_its_own() as folder, pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in environment(folder).items():
            patch.setenv(name, value)
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.CRITICAL}
        ray.init(address="local", **quiet, **options)
        try:
            yield
        finally:
            ray.shutdown()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def descendants(name: str) -> list[int]:
    """Processes that this one started, and theirs, of which the command line begins with `name`."""
    pids = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if (process.cmdline() or [""])[0].startswith(name):
                pids.append(process.pid)
    return pids
