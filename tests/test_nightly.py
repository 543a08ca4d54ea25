"""examples/nightly.py on a real Ray head, as a scheduler calls it."""

import ast
import shlex
import time
from pathlib import Path
from threading import Thread

import nightly
import pytest
from nightly import MISTAKE, REJECTS, TRY_AGAIN, MistakeError, main, run, stop, work
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

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
        assert nightly.job_name(command, "2026-11-20") == f"{command}-2026-11-20"


def test_the_command_ends_with_the_status_of_its_job(
    head: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job_client(head)
    of_job = ["--config", "job.yaml", "--run-date", "2026-11-21"]
    for status in (MISTAKE, REJECTS):
        monkeypatch.setattr(nightly, "job_command", lambda *_, status=status: f"exit {status}")
        assert main(["--address", head["RAY_API_SERVER_ADDRESS"], *of_job]) == status
    assert main(["--address", f"http://127.0.0.1:{free_port()}", *of_job]) == TRY_AGAIN
    assert "Failed to connect to Ray at address" in capsys.readouterr().err
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
    assert [hasattr(nightly, name.name) for node in asked for name in node.names] == [True] * 5
