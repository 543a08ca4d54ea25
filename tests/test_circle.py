"""docs/finetune.md's commands, "mine, teach, train, judge", as they stand there, with a tiny model."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT, TINY

_TINY = {
    "configs/rerank/teacher.yaml": [f"scorer.model={TINY}"],
    "configs/finetune/student.yaml": [
        f"scorer.model={TINY}",
        "fresh_head=false",
        "training.max_steps=2",
        "held_out.every_steps=2",
        "num_cpus=1",
    ],
    "configs/rerank/demo.yaml": ["executor=here"],
}


def commands() -> list[list[str]]:
    """Of each, the words."""
    section = (ROOT / "docs/finetune.md").read_text().split("## Mine, teach, train, judge")[1]
    block = re.search(r"```\n(.*?)```", section, re.DOTALL)
    assert block
    return [shlex.split(line) for line in block[1].splitlines()]


def make_sample(folder: Path) -> None:
    """What the commands read; of the held-out queries the first two."""
    (folder / "examples/candidates").mkdir(parents=True)
    for name in ("configs", "examples/qrels.txt", "examples/run.bm25.trec"):
        (folder / name).symlink_to(ROOT / name)
    for part in ("part-0.parquet", "part-2.parquet"):
        (folder / "examples/candidates" / part).symlink_to(ROOT / "examples/candidates" / part)
    held_out = pq.read_table(ROOT / "examples/candidates/part-1.parquet").slice(0, 40)
    pq.write_table(held_out, folder / "examples/candidates/part-1.parquet")


def test_what_was_mined_is_taught_trained_and_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sample(tmp_path)
    monkeypatch.chdir(tmp_path)
    told = {}
    for _, _, module, *arguments in commands():
        more = [word for field in _TINY.get(arguments[1], []) for word in ("--set", field)]
        assert import_module(module).main([*arguments, *more]) == 0, capsys.readouterr().err
        told[module] = capsys.readouterr().out
    assert "15 training rows of 16 queries" in told["pipeline.mine"]
    assert "2 steps over 15 rows, 64 pairs" in told["pipeline.finetune"]
    assert "nDCG@10 on 2 held-out queries" in told["pipeline.finetune"]
    assert "40 pairs of 2 queries scored" in told["pipeline.rerank"]
    assert "nDCG@10" in told["pipeline.evaluate"]
    # The judged run is the student's, on the queries that its training measured.
    measured = re.search(r"([\d.]+) after 2 steps", told["pipeline.finetune"])
    assert measured
    assert measured[1] in told["pipeline.evaluate"]
