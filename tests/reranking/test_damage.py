"""Every kind of file in an output, damaged in every way: then the right bytes, or an error that names it."""

import json
import os
import re
import resource
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import status
from pipeline.errors import RayrankError
from pipeline.evaluation.runs import RunRow, read_whole_run
from pipeline.reranking import commit, flow, worker
from pipeline.reranking.config import RerankConfig
from tests.conftest import golden_cases
from tests.reranking.jobs import config, data_of

FILES = (
    "run/shard-000001.parquet",
    "rejects/shard-000001.parquet",
    "scores/shard-000001.parquet",
    "run.trec",
    "summary.json",
    "report.html",
    "_manifest/plan.json",
    "_manifest/files.json",
    "_manifest/done/shard-000001.json",
    "_manifest/driver/000001.json",
    "_SUCCESS",
)
WAYS = ("delete", "truncate", "empty", "flip", "replace", "add")
BELONGS_TO_NO_JOB = "_manifest/plan.json"
"""Without it nobody can tell which job's output it is: the one file that is not made again."""


SEEN = ("run", "rejects", "scores", "summary", "report", "_manifest/done", "_manifest/files")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, its run in `out`, the run of another table of the same ids in `other`."""
    path = tmp_path_factory.mktemp("made")
    pairs = golden_cases("tiny-bge-reranker")[0].pairs
    for name, order in (("in", pairs), ("in-2", pairs[::-1])):
        rows = [
            {"query_id": n // 4, "query": order[n // 4 * 4][0], "passage_id": n, "passage": text}
            for n, (_, text) in enumerate(order)
        ]
        rows[9]["passage"] = None
        (path / name).mkdir()
        pq.write_table(pa.Table.from_pylist(rows), path / f"{name}/part.parquet")
    flow.run(job(path))
    flow.run(job(path, "other", input={"path": str(path / "in-2")}))
    return path


def job(path: Path, out: str = "out", **sections: object) -> RerankConfig:
    return config(path / "in", out, output={"trec_run": True}, **sections)


def at(settings: RerankConfig, url: str) -> RerankConfig:
    """The same job with another place for its output."""
    return settings.model_copy(update={"output": settings.output.model_copy(update={"path": url})})


def start(settings: RerankConfig, *, check_bytes: bool = False) -> str:
    """The error that it ends with, if any."""
    try:
        flow.run(settings, check_bytes=check_bytes)
    except RayrankError as error:
        return str(error)
    return ""


def damage(file: Path, way: str, other: Path) -> bool:
    """Whether that changed anything."""
    data = file.read_bytes() if file.exists() else b""
    if way == "delete":
        file.unlink()
    elif way == "add":
        shutil.copy(file, file.with_name(f"more-{file.name}"))
    else:
        at = len(data) // 2
        changed = {"truncate": data[:4], "empty": b""}
        changed["flip"] = data[:at] + bytes(byte ^ 2 for byte in data[at : at + 1]) + data[at + 1 :]
        file.write_bytes(other.read_bytes() if way == "replace" else changed[way])
    return way in ("delete", "add") or file.read_bytes() != data


@pytest.fixture(autouse=True)
def _dead_drivers_are_soon_seen_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tables.output.lease.HEARTBEAT_S", 0.02)


def rows_or_error(url: str) -> list[RunRow] | str:
    try:
        return read_whole_run(url)[0]
    except RayrankError as error:
        return str(error)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FILES)
def test_a_finished_output(made: Path, tmp_path: Path, name: str, way: str) -> None:
    shutil.copytree(made / "out", tmp_path / "out")
    file = tmp_path / "out" / name
    if not damage(file, way, made / "other" / name):
        return
    url, right = str(tmp_path / "out"), data_of(made / "out")
    named = re.escape(f"more-{file.name}" if way == "add" else name)
    # Who measures it gets what is right, or the name of the file.
    rows, right_rows = rows_or_error(url), rows_or_error(str(made / "out"))
    assert rows == right_rows or re.search(f"{named}|no _SUCCESS|{url}/", str(rows)), rows
    told = status.main(["--output", url, "--check-bytes"])
    error = start(at(job(made), url), check_bytes=True)
    if error:
        assert way == "add" or name == BELONGS_TO_NO_JOB
        assert re.search(f"{named}|holds the output of another job", error), error
        return
    assert {name: data for name, data in data_of(tmp_path / "out").items() if "more-" not in name} == right
    assert rows_or_error(url) == right_rows
    assert status.main(["--output", url, "--check-bytes"]) == 0
    if name.startswith(SEEN) and way != "add":
        assert told == 4


@pytest.mark.parametrize("way", ["delete", "truncate", "empty"])
@pytest.mark.parametrize("name", [name for name in FILES if name != BELONGS_TO_NO_JOB])
def test_a_plain_start_of_a_finished_job_sees_lengths(
    made: Path, tmp_path: Path, name: str, way: str
) -> None:
    shutil.copytree(made / "out", tmp_path / "out")
    damage(tmp_path / "out" / name, way, tmp_path)
    assert start(at(job(made), f"{tmp_path}/out")) == ""
    assert data_of(tmp_path / "out") == data_of(made / "out")
    for each in ("_SUCCESS", "summary.json", "report.html"):
        assert (tmp_path / "out" / each).exists()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [name for name in FILES if "/" in name])
def test_a_run_whose_scores_are_reused(made: Path, tmp_path: Path, name: str, way: str) -> None:
    """A job that takes them gives the right bytes, or names the file: nothing is scored again in silence."""
    shutil.copytree(made / "out", tmp_path / "out")
    file = tmp_path / "out" / name
    if not damage(file, way, made / "other" / name):
        return
    error = start(at(job(made, reuse=f"{tmp_path}/out"), f"{tmp_path}/again"))
    if error:
        assert re.search(f"{re.escape(name)}|no finished run|is the marker of another job", error), error
    else:
        summary = json.loads((tmp_path / "again/summary.json").read_text())
        assert summary["reused"] == summary["pairs"] == 31
        assert data_of(tmp_path / "again") == data_of(made / "out")


@pytest.mark.parametrize("moment", ["score", "write_scores", "mark_done"])
def test_an_output_that_is_removed_while_the_job_runs(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The job says so, and the next start goes on or says how."""
    module = worker if moment == "score" else commit
    work, calls = getattr(module, moment), []

    def removing(*arguments: Any) -> Any:
        calls.append(moment)
        while len(calls) == 2 and (tmp_path / "out").exists():  # the driver may write a heartbeat meanwhile
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
        return work(*arguments)

    monkeypatch.setattr(module, moment, removing)
    told = "removed while the job ran|were written, but not here"
    assert re.search(told, error := start(at(job(made), f"{tmp_path}/out"))), error
    monkeypatch.undo()
    again = start(at(job(made), f"{tmp_path}/out"))
    if again:
        assert re.search("not empty, and no output .* remove the directory", again), again
        shutil.rmtree(tmp_path / "out")
        assert start(at(job(made), f"{tmp_path}/out")) == ""
    assert data_of(tmp_path / "out") == data_of(made / "out")


def test_a_disk_without_room_is_told_and_gone_on_with(made: Path, tmp_path: Path) -> None:
    """As a limit on the size of files shows it: RLIMIT_FSIZE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        error = start(at(job(made), f"{tmp_path}/out"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert re.search(r"out/.*: can't be written: .*File too large", error), error
    assert not list((tmp_path / "out").rglob("*.tmp"))
    assert start(at(job(made), f"{tmp_path}/out")) == ""
    assert data_of(tmp_path / "out") == data_of(made / "out")


def test_an_input_that_was_changed_between_kill_and_resume_is_refused(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "made")
    out = tmp_path / "made/out"
    (out / "_SUCCESS").unlink()
    (out / "_manifest/done/shard-000002.json").unlink()
    os.utime(tmp_path / "made/in/part.parquet", (1, 1))
    moved = job(tmp_path / "made")
    assert "holds the output of another job" in start(moved)
    assert "part.parquet: is new" in start(moved)
