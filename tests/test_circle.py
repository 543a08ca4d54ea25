"""docs/finetune.md's commands, "mine, teach, train, judge", as they stand there, with a tiny model."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY

_TINY = {
    "configs/rerank/teacher.yaml": [f"scorer.model={TINY}"],
    "configs/finetune/student.yaml": [
        f"scorer.model={TINY}",
        "fresh_head=false",
        "training.max_steps=2",
        "held_out.every_steps=2",
    ],
    "configs/rerank/demo.yaml": ["executor=here"],
}


def commands() -> list[list[str]]:
    """Of each, the words."""
    section = (ROOT / "docs/finetune.md").read_text().split("## Mine, teach, train, judge")[1]
    block = re.search(r"```\n(.*?)```", section, re.DOTALL)
    assert block
    return [shlex.split(line) for line in block[1].splitlines()]


def test_what_was_mined_is_taught_trained_and_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("configs", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    told = {}
    for _, _, module, *arguments in commands():
        more = [word for field in _TINY.get(arguments[1], []) for word in ("--set", field)]
        assert import_module(module).main([*arguments, *more]) == 0, capsys.readouterr().err
        told[module] = capsys.readouterr().out
    assert "15 training rows of 16 queries" in told["pipeline.mine"]
    assert "2 steps over 15 rows, 64 pairs" in told["pipeline.finetune"]
    assert "nDCG@10 on 8 held-out queries" in told["pipeline.finetune"]
    assert "160 pairs of 8 queries scored" in told["pipeline.rerank"]
    assert "nDCG@10" in told["pipeline.evaluate"]
    # The judged run is the student's, on the queries that its training measured.
    measured = re.search(r"([\d.]+) after 2 steps", told["pipeline.finetune"])
    assert measured
    assert measured[1] in told["pipeline.evaluate"]
