"""A training that goes on from its checkpoints: which are kept, and what a kill or damage leaves."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.errors import OutputError
from pipeline.finetuning import flow
from pipeline.finetuning.held_out import Measured
from pipeline.finetuning.loop import Loop, download, upload
from pipeline.tables.output.directory import Directory
from tests.conftest import ROOT
from tests.finetuning.rows import config
from tests.finetuning.test_flow import held_out, lines, weights
from tests.full_disk import files_up_to
from tests.scoring.checkpoints import make_trunk

KILLED_IN_STEP_8 = """
import os, signal, sys
from pipeline import finetune
from pipeline.finetuning.trainer import Trainer

step = Trainer.step


def deadly(trainer, groups, of=None):
    if trainer.steps_done == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(trainer, groups, of)


Trainer.step = deadly
sys.exit(finetune.main(sys.argv[1:]))
"""


def test_killed_in_the_middle_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """After its first checkpoint. Dropout is on, so that random numbers matter."""
    training = {"max_steps": 40, "save_steps": 5}
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for folder in (undisturbed, killed):
        folder.mkdir()
    measured = held_out(tmp_path, every_steps=10)
    flow.run(config(undisturbed, training=training, held_out=measured))
    job = config(killed, training=training, held_out=measured)
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(job.model_dump(mode="json", exclude_defaults=True)))
    command = [sys.executable, "-c", KILLED_IN_STEP_8, "--config", str(file)]
    process = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert [one.name for one in killed.glob("out/checkpoints/*.json")] == ["step-00000005.json"]
    assert not (killed / "out/_SUCCESS").exists()
    summary = flow.run(job)
    assert weights(killed) == weights(undisturbed)
    assert [line["step"] for line in lines(killed)] == [line["step"] for line in lines(undisturbed)]
    assert [line.get("loss") for line in lines(killed)] == [line.get("loss") for line in lines(undisturbed)]
    assert (summary.steps, summary.pairs) == (40, 240)


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "whole").mkdir()
    flow.run(config(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(flow, "_finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            flow.run(config(tmp_path))
    found = sorted((tmp_path / "out/checkpoints").glob("*.pt"))
    assert [file.name for file in found] == ["step-00000004.pt", "step-00000006.pt"]
    found[1].write_bytes(found[1].read_bytes()[:-1])
    assert flow.run(config(tmp_path)).steps == 6
    assert weights(tmp_path) == weights(tmp_path / "whole")
    assert not (tmp_path / "out/checkpoints").exists()


def test_a_kept_model_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = {"config.json": b"{}", "LICENSE": b"free", "_hidden.py": b"", "1.0_Dense/model.bin": b"w"}
    for name, data in written.items():
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / name).write_bytes(data)
    output = Directory(str(tmp_path / "out"))
    upload(tmp_path / "a", output, "model")
    download(output, "model", tmp_path / "b")
    assert {name: (tmp_path / "b" / name).read_bytes() for name in written} == written
    with pytest.raises(OutputError, match=r"out/other: was removed before the job ended"):
        download(output, "other", tmp_path / "c")


def test_the_best_model_of_the_checkpoint_before_is_there_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest checkpoint led to a better one, and is damaged. Other steps follow, and none is as good."""
    quality = {0: 0.1, 2: 0.2, 4: 0.5, 6: 0.6}
    measure = Loop._measured

    def as_told(loop: Loop, folder: Path, step: int) -> Measured:
        return Measured(np.full_like(measure(loop, folder, step).values, quality[step]))

    monkeypatch.setattr(Loop, "_measured", as_told)
    job = config(tmp_path, held_out=held_out(tmp_path, every_steps=2))
    with monkeypatch.context() as patch:
        patch.setattr(flow, "_finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            flow.run(job)
    checkpoints = tmp_path / "out/checkpoints"
    (checkpoints / "step-00000006.pt").write_bytes(b"")
    (checkpoints / "step-00000002.pt").write_bytes(b"left by a start that was killed while it removed it")
    before = {file.name: file.read_bytes() for file in (checkpoints / "model-00000004").iterdir()}
    quality[6] = 0.3
    with monkeypatch.context() as patch:
        patch.setattr(flow, "_finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            flow.run(job)
    assert {file.name for file in checkpoints.glob("*.pt")} == {"step-00000004.pt", "step-00000006.pt"}
    summary = flow.run(job)
    assert summary.best_step == 4
    assert {name: (tmp_path / "out/model" / name).read_bytes() for name in before} == before


@pytest.mark.parametrize(
    ("size", "sections", "message"),
    [
        (100_000, {"held_out": {}}, "^the trained model can't be kept: the temporary folder"),
        (800_000, {}, "/out/checkpoints/step-00000002.pt: can't be written: the temporary folder"),
        (50_000, {"fresh_head": True}, "^the model to begin with can't be kept: the temporary folder"),
    ],
)
def test_a_temporary_folder_without_room_is_named_and_gone_on_after(
    tmp_path: Path, size: int, sections: dict[str, Any], message: str
) -> None:
    """As a limit on the size of files shows it."""
    if "fresh_head" in sections:
        sections = {**sections, "scorer": {"model": str(make_trunk(tmp_path / "trunk", "bert"))}}
    if "held_out" in sections:
        sections = {"held_out": held_out(tmp_path, every_steps=1)}
    job = config(tmp_path, **sections)
    with (
        pytest.raises(OutputError, match=f"{message} {tempfile.gettempdir()} .* set TMPDIR"),
        files_up_to(size),
    ):
        flow.run(job)
    assert flow.run(job).steps == 6
