"""examples/nightly.py on a real Ray head, as a scheduler calls it."""

import ast
import json
import os
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import nightly
import pytest
from nightly import MISTAKE, REJECTS, TRY_AGAIN, MistakeError, connect, job_name, main, run, stop, work
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
from requests.exceptions import RequestException

from pipeline import rerank, retrieve
from tests.conftest import ROOT, TINY
from tests.own_ray import job_client
from tests.ports import free_port

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def client(head: dict[str, str]) -> JobSubmissionClient:
    return job_client(head)


def test_a_date_is_reranked_and_a_second_time_found_done(
    tmp_path: Path, client: JobSubmissionClient, head: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    # Few pairs: three processes that import torch are slow enough.
    (tmp_path / "job.yaml").write_text(
        f"""\
input: {{path: {ROOT}/examples/candidates/part-0.parquet}}
output: {{path: "{tmp_path}/{{run_date}}"}}
scorer: {{model: {TINY}}}
executor: here
"""
    )
    at = ["--address", head["RAY_API_SERVER_ADDRESS"]]
    command = [*at, "--config", f"{tmp_path}/job.yaml", "--run-date", "2026-11-20"]
    assert work(client, "rerank", f"{tmp_path}/job.yaml", "2026-11-20") == 0
    assert "160 pairs of 8 queries scored" in capfd.readouterr().out
    assert main(command) == 0
    assert "160 pairs of 8 queries scored" in capfd.readouterr().out
    assert (tmp_path / "2026-11-20/_SUCCESS").is_file()
    with pytest.raises(MistakeError):
        work(client, "retrieve", "/nowhere.yaml", "2026-11-20")
    assert "error: /nowhere.yaml: No such file" in capfd.readouterr().out


def test_its_command_is_one_of_the_project() -> None:
    for command, parse in (("rerank", rerank.parse), ("retrieve", retrieve.parse)):
        line = shlex.split(nightly.job_command(command, "/on/the cluster/job.yaml", "2026-11-20"))
        assert line[:3] == ["python", "-m", f"pipeline.{command}"]
        asked = parse(line[3:])
        assert (str(asked.config), asked.overrides) == ("/on/the cluster/job.yaml", ["run_date=2026-11-20"])
        name = job_name(command, "/on/the cluster/my job.yaml", "2026-11-20")
        assert re.fullmatch(rf"{command}-my_job-[0-9a-f]{{8}}-2026-11-20", name)


def test_two_configs_of_a_date_are_two_jobs(client: JobSubmissionClient) -> None:
    first, second = (job_name("rerank", f"/{folder}/job.yaml", "2026-11-22") for folder in ("de", "en"))
    ended: list[int] = []
    stopper = Thread(target=_stop, args=(client, first))
    other = Thread(target=lambda: ended.append(run(client, second, "sleep 5; exit 3", 0.1)))
    for thread in (other, stopper):
        thread.start()
    with pytest.raises(RuntimeError, match=f"{first}-1: STOPPED"):
        run(client, first, "sleep 60", 0.1)
    for thread in (other, stopper):
        thread.join(timeout=60)
    assert ended == [REJECTS]


def test_the_command_ends_with_the_status_of_its_job(
    head: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job_client(head)
    # Of another cluster, or none: the job goes to --address.
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    of_job = ["--config", "job.yaml", "--run-date", "2026-11-21"]
    for status in (MISTAKE, REJECTS):
        monkeypatch.setattr(nightly, "job_command", lambda *_, status=status: f"exit {status}")
        assert main(["--address", head["RAY_API_SERVER_ADDRESS"], *of_job]) == status
    assert main(["--address", f"http://127.0.0.1:{free_port()}", *of_job]) == TRY_AGAIN
    assert "Failed to connect to Ray at address" in capsys.readouterr().err
    assert os.environ["RAY_ADDRESS"] == "127.0.0.1:1"
    assert main(["--address", "http://head:port", *of_job]) == MISTAKE
    assert "error: --address: Failed to parse: 'head:port'" in capsys.readouterr().err
    at = [*of_job, "--address", "http://head:8265"]
    for wrong, told in (
        (["2026-11-29"], "the following arguments are required"),
        ([*at, "--run-date", "yesterday"], "argument --run-date: yesterday: needs a date such as 2026-11-20"),
        (
            [*at, "--address", "head:8265"],
            "argument --address: head:8265: needs http:// or https:// before it",
        ),
        ([*at, "--command", "prepare"], "argument --command: invalid choice: 'prepare'"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(wrong)
        assert told in capsys.readouterr().err


def test_the_log_is_printed_as_it_grows(
    tmp_path: Path, client: JobSubmissionClient, capfd: pytest.CaptureFixture[str]
) -> None:
    waits = f"while [ ! -e {tmp_path}/go ]; do sleep 0.1; done"
    ended: list[int] = []
    asker = Thread(
        target=lambda: ended.append(
            run(client, "grows", f"echo first' 'line; {waits}; echo second' 'line", 0.1)
        )
    )
    asker.start()
    out = ""
    deadline = time.monotonic() + 60
    while "first line" not in out:
        assert time.monotonic() < deadline
        time.sleep(0.1)
        out += capfd.readouterr().out
    assert not ended
    (tmp_path / "go").touch()
    asker.join(timeout=60)
    out += capfd.readouterr().out
    assert ended == [0]
    assert (out.count("first line"), out.count("second line")) == (1, 1)


Answer = tuple[int, object]
"""Status and body of what a head, or a proxy before it, answers; None for a connection that it drops."""


@contextmanager
def cluster(*polls: Answer | None) -> Iterator[str]:
    """The address of one with a job that runs, whose first polls it answers so. All others find it ended."""
    job = {"type": "SUBMISSION", "entrypoint": "true", "submission_id": f"{OF_CLUSTER}-1"}
    left = list(polls)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = {
                "/api/version": {"ray_version": "2.60.0"},
                "/api/jobs/": [job | {"status": "RUNNING"}],
                f"/api/jobs/{OF_CLUSTER}-1/logs": {"logs": "done"},
            }
            answer: Answer | None = (200, asked.get(self.path))
            if self.path not in asked:
                ended: Answer = (200, job | {"status": "SUCCEEDED", "driver_exit_code": 0})
                answer = left.pop(0) if left else ended
            if answer is None:
                return
            status, body = answer
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.05,)).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


OF_CLUSTER = job_name("rerank", "job.yaml", "2026-11-20")
DROPS = {"connection": None, "proxy": (502, b"<html>"), "head": (500, b"no GCS"), "page": (200, b"<html>")}


@pytest.mark.parametrize("drop", DROPS.values(), ids=DROPS)
def test_a_cluster_that_goes_away_is_tried_again_and_then_given_up(
    drop: Answer | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with cluster(drop, drop) as address:
        assert run(connect(address), OF_CLUSTER, "true", 0.01) == 0
        assert capsys.readouterr().out == "done"
    with cluster(*[drop] * 5) as address, pytest.raises((RequestException, RuntimeError)):
        run(connect(address), OF_CLUSTER, "true", 0.01)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with cluster(*[drop] * 5) as address:
        of_job = ["--config", "job.yaml", "--run-date", "2026-11-20"]
        assert main(["--address", address, *of_job]) == TRY_AGAIN
        assert f"error: {address}: " in capsys.readouterr().err


def test_a_head_that_is_not_ready_is_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    class Starting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Starting) as server:
        Thread(target=server.serve_forever, args=(0.05,)).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert main(["--address", address, "--config", "job.yaml", "--run-date", "2026-11-20"]) == TRY_AGAIN
        server.shutdown()
    assert "503 Server Error" in capsys.readouterr().err


def test_what_may_pass_is_no_mistake(client: JobSubmissionClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nightly, "run", lambda *_: 75)
    with pytest.raises(RuntimeError, match="what it needs is not there for now") as caught:
        work(client, "rerank", "job.yaml", "2026-11-20")
    assert not isinstance(caught.value, MistakeError)


def test_a_job_that_runs_is_waited_for(
    tmp_path: Path, client: JobSubmissionClient, head: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = f"while [ ! -e {tmp_path}/asked_twice ]; do sleep 0.1; done"
    command = f"echo >> {tmp_path}/starts; {waits}; exit {REJECTS}"
    ended: list[int] = []

    second = job_client(head)

    def how_far(job_id: str) -> JobDetails:
        """The second asker asks once it has found that the job runs, which must not end before."""
        (tmp_path / "asked_twice").touch()
        return client.get_job_info(job_id)

    monkeypatch.setattr(second, "get_job_info", how_far)
    askers = [
        Thread(target=lambda: ended.append(run(client, "waited", command, 0.1))),
        Thread(target=lambda: ended.append(run(second, "waited", command, 0.1))),
    ]
    for asker in askers:
        asker.start()
        _wait_until_it_runs(client, "waited-1")
    for asker in askers:
        asker.join(timeout=60)
    assert ended == [REJECTS, REJECTS]
    assert (tmp_path / "starts").read_text() == "\n"


def test_a_stopped_job_has_failed_and_starts_again(client: JobSubmissionClient) -> None:
    stopper = Thread(target=_stop, args=(client, "stopped"))
    stopper.start()
    with pytest.raises(RuntimeError, match="stopped-1: STOPPED: Job was intentionally stopped"):
        run(client, "stopped", "sleep 60", 0.1)
    stopper.join()
    assert run(client, "stopped", "exit 0", 0.1) == 0


def _stop(client: JobSubmissionClient, name: str) -> None:
    _wait_until_it_runs(client, f"{name}-1")
    stop(client, name)


def _wait_until_it_runs(client: JobSubmissionClient, job_id: str) -> None:
    deadline = time.monotonic() + 60
    while {job.submission_id: job.status for job in client.list_jobs()}.get(job_id) != JobStatus.RUNNING:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_dag_is_python_and_asks_for_what_nightly_has() -> None:
    """Airflow itself, which pins hundreds of packages, is not installed here."""
    tree = ast.parse((ROOT / "examples/airflow_dag.py").read_text())
    asked = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "nightly"]
    assert [hasattr(nightly, name.name) for node in asked for name in node.names] == [True] * 6
