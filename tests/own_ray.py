"""A Ray that nothing else on the machine joins, and that joins nothing."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.job_submission import JobSubmissionClient

from tests.ports import free_port

ROOT = Path(__file__).parents[1]


@contextmanager
def folder_of_its_own() -> Iterator[Path]:
    """For RAY_TMPDIR. A short path: Ray keeps its sockets there, whose paths end at 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def environment(folder: Path) -> dict[str, str]:
    """Local Rays ask for no token here: they listen on this machine alone. They start no workers before they
    have work for them: many of ours are of another environment, or need none. Workers are as urgent as the
    other tests, beside which they run: Ray would have them wait."""
    return {
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": "disabled",
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_worker_prestart": "0",
        "RAY_worker_niceness": "0",
    }


@contextmanager
def own_ray(**options: Any) -> Iterator[None]:
    """This process's, with `options` of ray.init."""
    with folder_of_its_own() as folder, pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in environment(folder).items():
            patch.setenv(name, value)
        options = {"include_dashboard": False, "log_to_driver": False} | options
        ray.init(address="local", logging_level=logging.CRITICAL, **options)
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def head_node() -> Iterator[dict[str, str]]:
    """A cluster as `ray start --head` makes one: the environment with which clients and jobs find it.

    Its jobs find this project as if it were installed there, and `python` as it is here.
    """
    binaries = Path(sys.executable).parent
    dashboard, agent, client = (free_port() for _ in range(3))
    with folder_of_its_own() as folder:
        variables = os.environ | environment(folder)
        variables |= {"PATH": f"{binaries}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        variables |= {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
        options = [
            *("--head", "--num-cpus=2", "--block", "--port=0", f"--temp-dir={folder}"),
            f"--dashboard-port={dashboard}",
            f"--dashboard-agent-listen-port={agent}",
            f"--ray-client-server-port={client}",
        ]
        head = subprocess.Popen(
            [binaries / "ray", "start", *options],
            env=variables,
            stdout=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        try:
            yield variables
        finally:
            os.killpg(head.pid, signal.SIGKILL)  # all of the cluster; asked kindly, it takes half a minute
            head.wait()


@contextmanager
def joined(head: dict[str, str], **options: Any) -> Iterator[str]:
    """This process as a driver of a `head_node`, with `options` of ray.init; the cluster's address."""
    job_client(head)
    file = Path(head["RAY_TMPDIR"], "ray_current_cluster")
    deadline = time.monotonic() + 60
    while not (address := file.read_text() if file.exists() else ""):  # jobs are taken before it is written
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ray.init(address=address, logging_level=logging.CRITICAL, log_to_driver=False, **options)
    try:
        yield address
    finally:
        ray.shutdown()


def job_client(variables: dict[str, str]) -> JobSubmissionClient:
    """Of a `head_node`, once it takes jobs."""
    deadline = time.monotonic() + 60
    while True:
        try:
            client = JobSubmissionClient(variables["RAY_API_SERVER_ADDRESS"])
            client.submit_job(entrypoint="true")  # answers before it can start jobs
        except (ConnectionError, RuntimeError):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        else:
            return client


def descendants(name: str) -> list[int]:
    """Processes that this one started, and theirs, of which the command line begins with `name`."""
    pids = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if (process.cmdline() or [""])[0].startswith(name):
                pids.append(process.pid)
    return pids
