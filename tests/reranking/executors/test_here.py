"""A job in this process: Ray stays out of it, and a shard that kills the process is given up."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from pipeline.errors import DeviceError, InputError
from pipeline.rerank import main
from pipeline.reranking import flow, worker
from pipeline.reranking.shard import EncodedShard, ScoredShard, score
from pipeline.scoring import Scorer
from pipeline.tables.input.shards import Shard
from pipeline.tables.output.attempts import MAX_ATTEMPTS
from tests.conftest import ROOT, TINY
from tests.reranking.jobs import config, data_of

IMPORTS = "import sys; from pipeline.rerank import main; main(sys.argv[1:]); assert 'ray' not in sys.modules"


def write(table: Path, out: str) -> Path:
    job = table.parent / f"{out}.json"  # JSON is YAML
    job.write_text(config(table, out).model_dump_json(exclude_defaults=True))
    return job


def test_the_command_asks_for_no_ray(table: Path) -> None:
    command = [sys.executable, "-c", IMPORTS, "--config", str(write(table, "out"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "32 pairs of 8 queries scored" in done.stdout
    flow.run(config(table, "again"))
    assert data_of(table.parent / "out") == data_of(table.parent / "again")


DEADLY = """
import os, sys
from pipeline.reranking import worker
from pipeline.rerank import main
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.lean_imports import lean_imports

with lean_imports():
    _ = Scorer(ScorerConfig(model=MODEL, device="cpu")).model  # imports what each start would

score = worker.score

def deadly(encoded, scorer):
    if encoded.shard.index == 2:
        os.kill(os.getpid(), 9)
    return score(encoded, scorer)

worker.score = deadly
for _ in range(4):  # starts, each a process of its own, but for the imports
    if not (start := os.fork()):
        os._exit(main(sys.argv[1:]))
    print(os.waitstatus_to_exitcode(os.waitpid(start, 0)[1]), file=sys.stderr)
"""


def test_a_shard_that_kills_the_process_is_given_up_by_a_later_start(table: Path) -> None:
    script = DEADLY.replace("MODEL", repr(TINY))
    command = [sys.executable, "-c", script, "--config", str(write(table, "out"))]
    starts = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    ended = [line for line in starts.stderr.splitlines() if line.removeprefix("-").isdecimal()]
    assert ended == [str(-signal.SIGKILL)] * MAX_ATTEMPTS + ["4"], starts.stderr
    summary = json.loads((table.parent / "out/summary.json").read_text())
    assert [shard["name"] for shard in summary["quarantined"]] == ["shard-000002"]
    assert not (table.parent / "out/_SUCCESS").exists()
    again = flow.run(config(table, "out"))  # what killed it is mended
    assert (again.quarantined, again.shards_done_before, again.pairs) == ([], 3, 32)
    flow.run(config(table, "undisturbed"))
    assert data_of(table.parent / "out") == data_of(table.parent / "undisturbed")


def test_a_card_that_fails_ends_the_start_and_not_the_night(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another process may get more from it: status 75. A shard on which it fails each time is given up."""

    def failing(encoded: EncodedShard, scorer: Scorer) -> ScoredShard:
        if encoded.shard.index == 2:
            raise DeviceError("the device cuda failed: CUDA error: unspecified launch failure")
        return score(encoded, scorer)

    monkeypatch.setattr(worker, "score", failing)
    job = ["--config", str(write(table, "out"))]
    assert [main(job) for _ in range(4)] == [75, 75, 75, 4]
    assert capsys.readouterr().err.count("error: the device cuda failed: CUDA error: unspecified launch") == 3
    summary = json.loads((table.parent / "out/summary.json").read_text())
    assert [shard["name"] for shard in summary["quarantined"]] == ["shard-000002"]


def test_a_model_that_kills_who_loads_it_is_told(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = DeviceError("the device cuda failed: CUDA error: unknown error")
    monkeypatch.setattr(Scorer, "model", property(Mock(side_effect=broken)))
    job = ["--config", str(write(table, "out"))]
    assert [main(job) for _ in range(4)] == [75] * 4
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(
        f"error: 3 processes died while they loaded {TINY}, one after another, the last on "
    )
    assert told.endswith(
        ": the device cuda failed: CUDA error: unknown error. Start again on machines with other GPUs"
    )
    monkeypatch.undo()
    assert main(job) == 0
    assert main([*job, "--set", f"output.path={table.parent}/again"]) == 0
    assert data_of(table.parent / "out") == data_of(table.parent / "again")


def test_each_step_counts_for_itself(table: Path) -> None:
    for step, shard, tries in (("encode", 1, 3), ("score", 2, 3), ("score", 3, 2)):
        name = f"out/_manifest/attempts/{shards(table)[shard].name}.{step}.json"
        (table.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (table.parent / name).write_text(str(tries))  # what killed processes leave
    summary = flow.run(config(table, "out"))
    assert [(one.name, one.stage) for one in summary.quarantined] == [
        ("shard-000001", "encode"),
        ("shard-000002", "score"),
    ]
    assert f"  shard-000001, in encode: {table}/part-0.parquet from row 9" in summary.as_text()
    assert summary.pairs == 16
    assert flow.run(config(table, "out")).quarantined == []  # the next start tries them again


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError("a mistake")])
@pytest.mark.parametrize("step", ["encode", "score", "commit"])
def test_a_process_that_lives_has_survived(
    table: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as failing:
        failing.setattr(worker, step, fail)
        for _ in range(MAX_ATTEMPTS):
            with pytest.raises((KeyboardInterrupt, InputError)):
                flow.run(config(table, "out"))
    assert flow.run(config(table, "out")).quarantined == []


def shards(table: Path) -> tuple[Shard, ...]:
    return flow.plan_job(config(table, "out")).plan.shards
