"""The command as a person or a scheduler runs it: a process, its output and its exit status."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import ray_address
from pipeline.command import LOADING
from pipeline.rerank import main
from pipeline.tables.output import lease
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.lease import last_heartbeat
from tests.conftest import ROOT, TINY, golden_cases
from tests.own_ray import job_client
from tests.ports import free_port
from tests.reranking.jobs import WAITING_AFTER_TWO_SHARDS

COMMAND = [sys.executable, "-m", "pipeline.rerank", "--config"]
WAITING = [sys.executable, "-c", WAITING_AFTER_TWO_SHARDS, "--config"]
DEMO = str(ROOT / "configs/rerank/demo.yaml")


def rerank(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job of sixteen shards of two queries each."""
    rows = [
        {
            "query_id": f"q{copy:02}-{number // 4}",
            "query": query,
            "passage_id": f"p{number}",
            "passage": passage,
        }
        for copy in range(4)
        for number, (query, passage) in enumerate(golden_cases("tiny-bge-reranker")[0].pairs)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "table.parquet")
    (tmp_path / "job.yaml").write_text(
        f"""\
input: {{path: {tmp_path}/table.parquet}}
output: {{path: {tmp_path}/out, trec_run: true}}
scorer: {{model: {TINY}, device: cpu}}
shard_pairs: 8
"""
    )
    return tmp_path


def data_of(output: Path) -> dict[str, bytes]:
    files = [*output.glob("run/*"), output / "run.trec"]
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.ray
def test_the_demo_runs_and_says_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")  # as a job leaves it to what its process starts next
    done = rerank(DEMO, "--set", f"output.path={tmp_path}/out", "--set", "actors.max=1")  # as `make demo`
    assert done.returncode == 0, done.stderr
    assert "640 pairs of 32 queries scored" in done.stdout
    of_a_slow_machine = (LOADING, " INFO progress ")
    lines = [line for line in done.stderr.splitlines() if not any(one in line for one in of_a_slow_machine)]
    assert len(lines) == 1
    assert lines[0].endswith("INFO planned shards=4 done=0 pairs=640")
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert (summary["pairs"], summary["kept"], summary["rejected"]) == (640, 320, {})
    assert summary["versions"]["ray"]


def test_a_dry_run_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["--config", DEMO, "--dry-run", "--set", f"output.path={tmp_path}/out"]) == 0
    told = capsys.readouterr().out
    assert "640 pairs" in told
    assert "4 of up to 160 pairs, 0 of them done" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "error: nowhere.yaml: No such file"),
        ([DEMO, "--set", "shard_pair=3"], "shard_pair: there is no such field"),
        ([DEMO, "--set", "input.path=nowhere/"], "error: input.path: nowhere/: no such file or directory"),
        ([DEMO, "--set", "input.columns.query=q"], "part-0.parquet: no column 'q'; it has query_id, query,"),
        ([DEMO, "--set", "scorer.model=./nowhere"], "error: scorer: ./nowhere: no such directory"),
        (
            [DEMO, "--set", "scorer.device=cuda:7", "--set", "output.path={out}"],
            "scorer.device cuda:7 needs actors that hold a GPU",
        ),
        ([DEMO, "--set", "output.path=examples"], "not empty, and no output of this program"),
    ],
)
def test_mistakes_end_with_status_2_and_one_message(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(ROOT)
    options = ["--config", *(argument.replace("{out}", str(tmp_path / "out")) for argument in arguments)]
    assert main(options) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.out == ""


def test_what_may_pass_by_itself_ends_with_status_75(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No cluster, no store, an output that is taken: the same command, later, finds them."""
    command = ["--config", str(job / "job.yaml")]
    nothing = f"127.0.0.1:{free_port()}"
    monkeypatch.setattr(ray_address, "_PATIENCE_S", 0.1)
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.3)
    monkeypatch.setenv("RAY_ADDRESS", nothing)
    assert main(command) == 75
    assert f"error: RAY_ADDRESS {nothing}: no cluster answers there" in capsys.readouterr().err

    command += ["--set", "executor=here"]
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{nothing}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    for field in ("input.path", "output.path", "qrels"):
        assert main([*command, "--set", "max_outage_s=0", "--set", f"{field}=s3://bucket/folder"]) == 75
        assert "error: s3://bucket/folder" in (told := capsys.readouterr().err)
        assert "Could not connect to the endpoint URL" in told

    with lease.lease(Directory(str(job / "out")), 1, 0):
        assert main(command) == 75
    assert "another start is writing here: process" in capsys.readouterr().err
    assert main(command) == 0


def test_a_mistake_ends_the_process_with_its_status() -> None:
    done = rerank("nowhere.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == "error: nowhere.yaml: No such file or directory"


def test_rejected_rows_end_with_status_3_also_the_second_time(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pq.read_table(job / "table.parquet").to_pylist()
    table[0]["passage"] = None
    pq.write_table(pa.Table.from_pylist(table), job / "table.parquet")
    for _ in range(2):
        options = ["--set", "shard_pairs=64", "--set", "executor=here"]
        assert main(["--config", str(job / "job.yaml"), *options]) == 3
        told = capsys.readouterr().out
        assert "1 row rejected" in told
        assert "1 null_passage: passage is null or missing" in told


def test_a_killed_job_goes_on_and_ends_with_the_same_bytes(job: Path) -> None:
    """In this process; reranking/test_survival.py and test_chaos.py have it on Ray."""
    alone = ["--set", "executor=here"]
    assert main(["--config", str(job / "job.yaml"), *alone, "--set", f"output.path={job}/undisturbed"]) == 0
    process = subprocess.Popen([*WAITING, str(job / "job.yaml"), *alone], cwd=ROOT, stderr=subprocess.DEVNULL)
    markers = job / "out/_manifest/done"
    while len(list(markers.glob("*.json"))) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    done_before = {path.name: path.stat().st_mtime_ns for path in markers.glob("*.json")}
    assert not (job / "out/_SUCCESS").exists()

    done = rerank(str(job / "job.yaml"), *alone)
    assert done.returncode == 0, done.stderr
    assert f"{len(done_before)} of 16 shards were done before" in done.stdout
    after = {path.name: path.stat().st_mtime_ns for path in markers.glob("*.json")}
    assert {name: after[name] for name in done_before} == done_before
    assert data_of(job / "out") == data_of(job / "undisturbed")
    assert not list((job / "out").rglob("*.tmp"))


@pytest.mark.parametrize(
    ("executor", "number", "status"),
    [
        # Which Ray would take for itself.
        pytest.param("ray_data", signal.SIGTERM, 143, marks=pytest.mark.ray),
        ("here", signal.SIGTERM, 143),
        ("here", signal.SIGINT, 130),
    ],
)
def test_an_interrupt_says_how_to_go_on(
    job: Path, executor: str, number: signal.Signals, status: int
) -> None:
    command = [*WAITING, str(job / "job.yaml"), "--set", f"executor={executor}"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not list((job / "out").glob("_manifest/done/*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    # `ray job stop` and spot machines give a few seconds.
    _, errors = process.communicate(timeout=30)
    assert process.returncode == status, errors
    heartbeat = last_heartbeat(Directory(str(job / "out")))
    assert heartbeat is not None
    assert heartbeat.state == "interrupted"
    assert "the same command goes on from the shards that are done" in errors
    assert "Traceback" not in errors


@pytest.fixture
def copy_of_the_project(tmp_path: Path) -> Path:
    """What a user submits: the source, without what git ignores."""
    target = tmp_path / "project"
    for name in ("pipeline", "configs", "examples"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target


@pytest.mark.ray
def test_it_runs_under_ray_job_submit(
    tmp_path: Path, copy_of_the_project: Path, head: dict[str, str]
) -> None:
    job_client(head)
    ray = str(Path(sys.executable).parent / "ray")

    def submit(output: str) -> subprocess.CompletedProcess[str]:
        rerank = ["python", "-m", "pipeline.rerank", "--config", "configs/rerank/demo.yaml"]
        small = ["--set", f"scorer.model={TINY}", "--set", "actors.max=1", "--set", f"output.path={output}"]
        return subprocess.run(
            [ray, "job", "submit", "--working-dir", ".", "--", *rerank, *small],
            cwd=copy_of_the_project,
            env={name: value for name, value in head.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    good = submit(f"{tmp_path}/out")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "640 pairs of 32 queries scored" in good.stdout + good.stderr
    assert (tmp_path / "out/_SUCCESS").is_file()
    bad = submit("out")
    assert bad.returncode != 0
    assert "give an absolute path or a URL" in bad.stdout + bad.stderr
