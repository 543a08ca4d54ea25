"""Two actors on a real Ray of this machine, and what one process makes of the same job."""

import json
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import TrainingError
from pipeline.finetuning import flow, trainer
from pipeline.finetuning.config import FinetuneConfig
from pipeline.finetuning.sampling import Group
from tests.conftest import TINY
from tests.finetuning.rows import config
from tests.finetuning.test_flow import held_out, lines, weights
from tests.own_ray import own_ray

pytestmark = pytest.mark.ray

ACTORS = {"actors": {"min": 2, "max": 2}}


def folders(folder: Path, *names: str) -> list[Path]:
    made = [folder / name for name in names]
    for each in made:
        each.mkdir()
    return made


def without_dropout(folder: Path) -> str:
    shutil.copytree(TINY, folder / "model")
    file = folder / "model/config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({name: 0.0 if "dropout_prob" in name else v for name, v in settings.items()}))
    return str(folder / "model")


def test_two_actors_learn_what_one_process_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three groups a step: one actor has two of them. By relative paths, for processes started elsewhere."""
    model = without_dropout(tmp_path)
    training = {"max_steps": 10, "per_device_train_batch_size": 3}
    sections: dict[str, Any] = {"scorer": {"model": Path(model).name}, "training": training}
    sections["held_out"] = held_out(tmp_path, every_steps=10)
    here, there = folders(tmp_path, "here", "there")
    broken = {"training": {"learning_rate": 1e30}, "output": {"path": str(there / "broken")}}
    with own_ray(num_cpus=2):
        monkeypatch.chdir(tmp_path)
        alone = flow.run(config(here, **sections))
        summary = flow.run(config(there, **sections, **ACTORS))
        with pytest.raises(TrainingError, match=r"^step \d+: the (loss|gradient's norm) is (nan|inf)"):
            flow.run(config(there, **broken, **ACTORS))
    assert [line["step"] for line in lines(there)] == [line["step"] for line in lines(here)]
    for ours, expected in zip(lines(there), lines(here), strict=True):
        assert ours == pytest.approx(expected, abs=1e-5)
    assert (summary.steps, summary.pairs, summary.best_step) == (10, 90, alone.best_step)
    assert (there / "out/_SUCCESS").exists()
    assert not (there / "out/checkpoints").exists()
    # How many work on it does not make it another job.
    assert flow.run(config(there, **sections)).finished_before is not None


def die_once() -> None:
    """In each actor: the second one is killed in step 8, while the file is there."""
    undisturbed = trainer.Trainer.step

    def step(self: trainer.Trainer, groups: Sequence[Group], of: int | None = None) -> trainer.Step:
        order = Path(os.environ["KILL"])
        if self.steps_done == 7 and self._peers.rank == 1 and order.exists():
            order.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return undisturbed(self, groups, of)

    setattr(trainer.Trainer, "step", step)  # noqa: B010  (a method of another module)


def test_a_killed_actor_changes_no_byte(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Dropout is on, so that random numbers matter. Step 8 is the second one after a checkpoint."""
    undisturbed, killed = folders(tmp_path, "undisturbed", "killed")
    order = tmp_path / "kill"

    def job(folder: Path) -> FinetuneConfig:
        return config(folder, training={"max_steps": 10, "save_steps": 3}, **ACTORS)

    environment = {"worker_process_setup_hook": die_once, "env_vars": {"KILL": str(order)}}
    with own_ray(num_cpus=2, runtime_env=environment):
        flow.run(job(undisturbed))
        order.touch()
        with caplog.at_level("INFO", "rayrank"):
            summary = flow.run(job(killed))
    assert not order.exists(), "nobody was killed"
    assert "actors start again after_step=7" in caplog.text
    assert (summary.steps, summary.pairs) == (10, 60)
    assert lines(killed) == lines(undisturbed)
    assert weights(killed) == weights(undisturbed)
