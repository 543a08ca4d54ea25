"""docs/mine.md: the steps of hn_mine run as they stand, on the sample's training rows."""

import json
import re
import shutil
from pathlib import Path

import pytest

from pipeline.config_file import load
from pipeline.mining import flow as mining
from pipeline.mining.config import MineConfig
from pipeline.retrieval import flow as retrieval
from pipeline.retrieval.config import RetrieveConfig
from tests.conftest import ROOT

TEXT = (ROOT / "docs/mine.md").read_text()


def test_hn_mines_steps_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    exec(code, {})
    for name, whole in re.findall(r"^```yaml\n# (\w+\.yaml)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        Path(name).write_text(whole)
    retrieval.run(load(RetrieveConfig, Path("retrieve.yaml"), ["executor=here"]))
    summary = mining.run(load(MineConfig, Path("mine.yaml"), ["executor=here"]))
    given = [json.loads(line) for line in Path("examples/training_rows.jsonl").read_text().splitlines()]
    assert summary.rows == summary.queries == len(given)
    written = Path("out/hn_mine/mined/training_rows").glob("*.jsonl")
    mined = [json.loads(line) for file in written for line in file.read_text().splitlines()]
    positives = {row["query"]: set(row["pos"]) for row in given}
    assert {row["query"]: set(row["pos"]) for row in mined} == positives
    assert all(len(row["neg"]) == 15 and positives[row["query"]].isdisjoint(row["neg"]) for row in mined)
