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
    path = Path("examples/training_rows.jsonl")
    given = [json.loads(line) for line in path.read_text().splitlines()]
    own = [{"prompt": f"prompt {number}", "type": "normal"} for number in range(len(given))]
    given = [row | more | {"pos_scores": [0] * len(row["pos"])} for row, more in zip(given, own, strict=True)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in given))
    split, join = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    exec(split, {})
    for name, whole in re.findall(r"^```yaml\n# (\w+\.yaml)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        Path(name).write_text(whole)
    retrieval.run(load(RetrieveConfig, Path("retrieve.yaml"), ["executor=here"]))
    summary = mining.run(load(MineConfig, Path("mine.yaml"), ["executor=here"]))
    assert summary.rows == summary.queries == len(given)
    written = Path("out/hn_mine/mined/training_rows").glob("*.jsonl")
    mined = [json.loads(line) for file in written for line in file.read_text().splitlines()]
    positives = {row["query"]: set(row["pos"]) for row in given}
    assert {row["query"]: set(row["pos"]) for row in mined} == positives
    assert all(len(row["neg"]) == 15 and positives[row["query"]].isdisjoint(row["neg"]) for row in mined)
    exec(join, {})
    joined = [json.loads(line) for line in Path("out/hn_mine/rows.jsonl").read_text().splitlines()]
    prompts = {row["query"]: {"prompt": row["prompt"], "type": row["type"]} for row in given}
    assert sorted(joined, key=str) == sorted((row | prompts[row["query"]] for row in mined), key=str)
