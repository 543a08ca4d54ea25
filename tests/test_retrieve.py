"""The command as a person or a scheduler runs it, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.retrieve import main
from tests.conftest import ROOT
from tests.retrieval.tables import config, write_texts

REFUSES = """\
import os
import sys


class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name == "pipeline.retrieval.plan":
            open(f"{os.path.dirname(__file__)}/worked-{os.getpid()}", "x").close()
        assert name not in ("torch", "transformers"), name


sys.meta_path.insert(0, Refuses())
"""
"""Every process begins with it. Those that plan or do tasks leave a file."""


@pytest.mark.parametrize(
    ("executor", "arguments", "processes"),
    [
        ("here", ["--dry-run"], 1),
        ("here", [], 1),
        pytest.param("ray_data", [], 2, marks=pytest.mark.ray),
    ],
)
def test_words_alone_need_no_torch(
    tmp_path: Path, executor: str, arguments: list[str], processes: int
) -> None:
    write_texts(tmp_path, {"p1": "panda bear", "p2": "bridge"}, {"q1": "what is a panda?"})
    job = config(tmp_path, executor=executor)
    (tmp_path / "job.yaml").write_text(json.dumps(job.model_dump(mode="json", exclude_unset=True)))
    (tmp_path / "sitecustomize.py").write_text(REFUSES)
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline.retrieve", "--config", tmp_path / "job.yaml", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr.count("Error")) == (0, 0), ended.stderr
    assert len(list(tmp_path.glob("worked-*"))) >= processes


@pytest.mark.parametrize("asked", [[], ["--check-bytes"]])
def test_a_finished_first_stage_whose_corpus_is_gone_is_not_late(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: list[str]
) -> None:
    (tmp_path / "2026-11-20").mkdir()
    write_texts(tmp_path / "2026-11-20", {"p1": "panda"}, {"q1": "panda"})
    job = config(
        tmp_path,
        passages={"path": f"{tmp_path}/{{run_date}}/corpus.jsonl", "format": "jsonl"},
        queries={"path": f"{tmp_path}/{{run_date}}/queries.jsonl", "format": "jsonl"},
        run_date="2026-11-20",
    )
    (tmp_path / "job.yaml").write_text(json.dumps(job.model_dump(mode="json", exclude_unset=True)))
    command = ["--config", str(tmp_path / "job.yaml"), *asked]
    corpus = tmp_path / "2026-11-20/corpus.jsonl"
    corpus.rename(tmp_path / "kept")
    assert main(command) == 75  # it may be written yet
    (tmp_path / "kept").rename(corpus)
    assert main(command) == 0
    corpus.rename(tmp_path / "kept")
    capsys.readouterr()
    assert main(command) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {corpus}: no such file or directory. {tmp_path}/out is finished, so")
    assert main([*command, "--dry-run"]) == 75  # a plan is of what is to come
    (tmp_path / "kept").rename(corpus)
    assert main(command) == 0
