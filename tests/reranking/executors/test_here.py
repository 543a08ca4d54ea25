"""A job in this process: Ray stays out of it, and a shard that kills the process is given up."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from pipeline.reranking import flow
from pipeline.tables.output.attempts import MAX_ATTEMPTS
from tests.conftest import ROOT
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

score = worker.score

def deadly(encoded, scorer):
    if encoded.shard.index == 2:
        os.kill(os.getpid(), 9)
    return score(encoded, scorer)

worker.score = deadly
sys.exit(main(sys.argv[1:]))
"""


def test_a_shard_that_kills_the_process_is_given_up_by_a_later_start(table: Path) -> None:
    command = [sys.executable, "-c", DEADLY, "--config", str(write(table, "out"))]
    ended = [subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode for _ in range(4)]
    assert ended == [-signal.SIGKILL] * MAX_ATTEMPTS + [4]
    summary = json.loads((table.parent / "out/summary.json").read_text())
    assert [shard["name"] for shard in summary["quarantined"]] == ["shard-000002"]
    assert not (table.parent / "out/_SUCCESS").exists()
    again = flow.run(config(table, "out"))  # what killed it is mended
    assert (again.quarantined, again.shards_done_before, again.pairs) == ([], 3, 32)
    flow.run(config(table, "undisturbed"))
    assert data_of(table.parent / "out") == data_of(table.parent / "undisturbed")
