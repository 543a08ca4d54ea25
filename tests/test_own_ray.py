"""A Ray that starts early, seen from outside: the processes of a command, and what they leave."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline import command, own_ray
from pipeline.errors import OutputError
from tests.conftest import ROOT
from tests.own_ray import folder_of_its_own

DEMO = [sys.executable, "-m", "pipeline.rerank", "--config", "configs/rerank/demo.yaml", "--set"]
FAILING = """
import sys
from pipeline import log, own_ray

def fail():
    raise ConnectionError("no port is free")

log.configure()
own_ray._init = fail
own_ray.start_early()
log.info("told", by="the log")
print("told by Python", file=sys.stderr)
try:
    own_ray.start()
except ConnectionError as error:
    print(error, own_ray.is_starting())
"""

RAYLET = """
import psutil
from pipeline import own_ray

own_ray.start()
(raylet,) = [one for one in psutil.Process().children(recursive=True) if one.name() == "raylet"]
for name, value in sorted(raylet.environ().items()):
    if name.startswith("RAY_raylet_client_"):
        print(name, value)
"""

SPILLS = """
import os
import numpy as np
import ray
from pipeline import own_ray

own_ray.start()
kept = [ray.put(np.zeros(50 * 2**20, np.uint8)) for _ in range(4)]
os.write(1, b"spilled" if own_ray._Starts.spilled.exists() else b"kept in memory")
own_ray.end_at_once()
os._exit(0)
"""


def run(command_line: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    # Without what a Ray that was started in this process has set.
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_raylet_client_")}
    environment = own | {"RAY_TMPDIR": str(folder)} | variables
    return subprocess.run(
        command_line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def of_ray(folder: Path) -> list[psutil.Process]:
    """The processes of a Ray with this RAY_TMPDIR. Its agents take other names, and log to it."""
    found = psutil.process_iter(["cmdline", "open_files"])
    return [
        one
        for one in found
        if any(f"{folder}/ray/" in word for word in one.info["cmdline"] or ())
        or any(file.path.startswith(f"{folder}/ray/") for file in one.info["open_files"] or ())
    ]


@pytest.mark.ray
def test_a_mistake_ends_a_command_whose_ray_still_starts_and_nothing_of_that_stays(tmp_path: Path) -> None:
    with folder_of_its_own() as folder:
        ended = run([*DEMO, "input.path=nowhere/", f"output.path={tmp_path}"], folder)
        assert ended.returncode == 2
        assert ended.stdout == ""
        last = ended.stderr.splitlines()[-1]  # before it, on a slow machine, that libraries are loading
        assert last == "error: input.path: nowhere/: no such file or directory"
        assert (folder / "ray").exists()  # it had begun
        gone, left = psutil.wait_procs(of_ray(folder), timeout=10)
        assert not left, gone


@pytest.mark.ray
def test_two_signals_end_a_job_with_its_status_and_nothing_of_its_ray_stays(tmp_path: Path) -> None:
    with folder_of_its_own() as folder:
        command_line = [*DEMO, f"output.path={tmp_path}/out", "shard_pairs=20", "actors.max=1"]
        environment = os.environ | {"RAY_TMPDIR": str(folder)}
        job = subprocess.Popen(command_line, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        while not list((tmp_path / "out").glob("_manifest/done/*.json")):
            assert job.poll() is None
            time.sleep(0.01)
        assert of_ray(folder)
        for _ in range(2):
            job.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        _, errors = job.communicate(timeout=60)
        assert job.returncode == 143, errors
        assert errors.splitlines()[-1].startswith("interrupted; ")
        gone, left = psutil.wait_procs(of_ray(folder), timeout=10)
        assert not left, gone


@pytest.mark.ray
@pytest.mark.parametrize("elsewhere", [False, True])
def test_nor_what_it_has_spilled_to_disk(tmp_path: Path, elsewhere: bool) -> None:
    with folder_of_its_own() as folder:
        # About the least that an object store can have.
        variables = {"RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(80 * 2**20)}
        if elsewhere:
            variables["RAY_object_spilling_directory"] = str(tmp_path)
        ended = run([sys.executable, "-c", SPILLS], folder, **variables)
        assert ended.stdout == "spilled", ended.stderr
        assert not list(folder.rglob("ray_spilled_objects_*"))
        assert not list(tmp_path.iterdir())


def test_a_dry_run_and_a_job_here_start_none(tmp_path: Path) -> None:
    with folder_of_its_own() as folder:
        for arguments in (["--dry-run"], ["--set", "executor=here", "actors.max=1"]):
            ended = run([*DEMO, f"output.path={tmp_path}/out", *arguments], folder)
            assert ended.returncode == 0, ended.stderr
        # It is finished now: nor does a job on Ray that has nothing to do.
        ended = run([*DEMO, f"output.path={tmp_path}/out"], folder)
        assert "already finished" in ended.stderr
        assert not list(folder.iterdir())


def test_where_a_cluster_is_named_none_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("head:6379", "auto"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        command.start_ray_early(f"{tmp_path}/out", max_outage_s=0)
        assert not own_ray.is_starting()


def test_an_output_that_is_none_is_refused_before() -> None:
    with pytest.raises(OutputError, match="takes for a pattern"):
        command.start_ray_early("memory://a*b", max_outage_s=0)
    assert not own_ray.is_starting()


def test_a_start_that_fails_is_told_where_it_is_waited_for(tmp_path: Path) -> None:
    ended = run([sys.executable, "-c", FAILING], tmp_path)
    assert ended.stdout == "no port is free False\n"
    log_line, printed = ended.stderr.splitlines()
    assert log_line.endswith("INFO told by='the log'")
    assert printed == "told by Python"


@pytest.mark.ray
def test_a_raylet_does_not_sleep_for_a_second_before_it_tries_again_unless_a_user_says_so() -> None:
    attempts, timeout = (
        "RAY_raylet_client_num_connect_attempts",
        "RAY_raylet_client_connect_timeout_milliseconds",
    )
    with folder_of_its_own() as folder:
        ended = run([sys.executable, "-c", RAYLET], folder)
        assert ended.stdout == f"{timeout} 100\n{attempts} 100\n", ended.stderr
        ended = run([sys.executable, "-c", RAYLET], folder, **{attempts: "20"})
        assert ended.stdout == f"{attempts} 20\n", ended.stderr
