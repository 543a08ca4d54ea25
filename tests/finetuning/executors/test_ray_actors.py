"""Two actors on a real Ray of this machine, and what one process makes of the same job."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from unittest.mock import Mock

import pytest
import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from pipeline.errors import DeviceError, TemporaryError, TrainingError
from pipeline.finetuning import flow, trainer
from pipeline.finetuning.executors import ray_actors
from pipeline.finetuning.progress import Line
from pipeline.finetuning.sampling import Group
from pipeline.finetuning.summary import Summary
from pipeline.placement import ActorsConfig
from tests.conftest import TINY
from tests.finetuning.rows import config
from tests.finetuning.test_flow import held_out, weights
from tests.finetuning.test_flow import lines as told
from tests.own_ray import joined

ACTORS: dict[str, Any] = {"actors": {"min": 2, "max": 2}}


def lines(folder: Path) -> list[Line]:
    """But for the time, which differs."""
    return [{name: value for name, value in line.items() if name != "time"} for line in told(folder)]


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


def test_the_dtype_is_asked_of_the_device_that_actors_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without GPUs they compute on CPUs, whatever cards their nodes have."""
    asked = Mock(return_value=["float32"])
    monkeypatch.setattr("pipeline.cluster.connect", Mock())
    monkeypatch.setattr("pipeline.cluster.fastest_dtypes", asked)
    scorer = {"model": TINY, "device": "auto", "dtype": "auto"}
    assert ray_actors.fastest_dtype(config(tmp_path, scorer=scorer, **ACTORS)) == "float32"
    ((scorers, _),) = (call.args for call in asked.call_args_list)
    assert [one.device for one in scorers] == ["cpu"]


@pytest.mark.parametrize(("wait_s", "waits"), [(3.0, [3.0]), (10.0, [10.0]), (60.0, [10.0, 50.0])])
def test_room_is_waited_for_as_long_as_the_config_says(
    wait_s: float, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    group = Mock(wait=Mock(return_value=False))
    monkeypatch.setattr(ray_actors, "_room", lambda *_: group)
    monkeypatch.setattr(ray_actors, "nodes", list)
    monkeypatch.setattr(ray_actors, "remove_placement_group", Mock())
    with pytest.raises(TemporaryError, match=rf"within {wait_s:g} s"):
        ray_actors._placed(ActorsConfig(wait_s=wait_s))
    assert [call.args[0] for call in group.wait.call_args_list] == waits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, head: dict[str, str]) -> Iterator[Path]:
    """With a model without dropout, and this process a driver whose actors may be killed."""
    made = tmp_path_factory.mktemp("actors")
    shutil.copytree(TINY, made / "model")
    file = made / "model/config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({name: 0.0 if "dropout_prob" in name else v for name, v in settings.items()}))
    environment = {"worker_process_setup_hook": die_once, "env_vars": {"KILL": str(made / "kill")}}
    with joined(head, runtime_env=environment):
        yield made


def run(folder: Path, name: str, model: str = "", **sections: Any) -> Summary:
    """Three groups a step, of which one actor has two. Steps 7 and 8 come after a checkpoint."""
    (folder / name).mkdir()
    training = {"max_steps": 10, "per_device_train_batch_size": 3, "save_steps": 3}
    training |= sections.pop("training", {})
    scorer = {"model": model or str(folder / "model")}
    measured = {"held_out": held_out(folder, every_steps=10)}
    return flow.run(config(folder / name, scorer=scorer, training=training, **measured, **sections))


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Summary:
    """By two actors, that were started elsewhere, of a model by a relative path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return run(folder, "undisturbed", model="model", **ACTORS)


@pytest.mark.ray
def test_two_actors_learn_what_one_process_learns(folder: Path, undisturbed: Summary) -> None:
    alone = run(folder, "alone")
    ours, expected = lines(folder / "undisturbed"), lines(folder / "alone")
    assert [line["step"] for line in ours] == [0, *range(1, 11), 10]
    assert ours == [pytest.approx(line, abs=1e-5) for line in expected]
    assert (undisturbed.steps, undisturbed.pairs, undisturbed.best_step) == (10, 90, alone.best_step)
    assert (folder / "undisturbed/out/_SUCCESS").exists()
    assert not (folder / "undisturbed/out/checkpoints").exists()


@pytest.mark.ray
def test_a_killed_actor_changes_no_byte(
    folder: Path, undisturbed: Summary, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "kill").touch()
    with caplog.at_level("INFO", "rayrank"):
        summary = run(folder, "killed", **ACTORS)
    assert not (folder / "kill").exists(), "nobody was killed"
    assert "actors start again after_step=7" in caplog.text
    told = [(line.split()[0], line.split()[1]) for line in caplog.messages if line.startswith("measur")]
    assert told == [(kind, f"steps={step}/10") for step in (0, 10) for kind in ("measuring", "measured")]
    assert (summary.steps, summary.pairs) == (undisturbed.steps, undisturbed.pairs)
    assert lines(folder / "killed") == lines(folder / "undisturbed")
    assert weights(folder / "killed") == weights(folder / "undisturbed")


class Starts:
    """Of actors, each of which ends in an error, after the steps it is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps: Sequence[int], error: RayError) -> None:
        self._steps, self._error, self.count = steps, error, 0
        monkeypatch.setattr(ray_actors, "_started", lambda *_: nullcontext())
        monkeypatch.setattr(ray_actors, "_trained", self._trained)
        monkeypatch.setattr(ray_actors._Share, "of", lambda _: None)

    def _trained(self, _actors: None, tell: Callable[[Line], None]) -> NoReturn:
        self.count += 1
        tell({"step": self._steps[self.count - 1], "loss": 1.0})
        raise self._error


def job() -> Any:
    return SimpleNamespace(config=SimpleNamespace(actors=ActorsConfig()))


def test_an_error_of_ours_ends_the_training_and_arrives_as_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = TrainingError("step 2: the loss is nan")
    wrap: Any = RayTaskError  # Ray 2.60 gives it no types
    starts = Starts(monkeypatch, [1], wrap("advance", "a trace", ours).as_instanceof_cause())
    with pytest.raises(TrainingError, match="^step 2: the loss is nan$") as caught:
        ray_actors.work(job(), lambda _: None)
    assert caught.value is ours
    assert starts.count == 1


def test_a_card_that_fails_may_be_another_one_at_the_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = DeviceError("the device cuda failed in step 2: CUDA error: unknown error")
    wrap: Any = RayTaskError  # Ray 2.60 gives it no types
    starts = Starts(monkeypatch, [1, 2, 2, 2], wrap("advance", "a trace", ours).as_instanceof_cause())
    with pytest.raises(DeviceError, match="^the device cuda failed in step 2: ") as caught:
        ray_actors.work(job(), lambda _: None)
    assert caught.value is ours
    assert starts.count == 4


def test_actors_that_die_without_a_new_step_end_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that are done again are told once, and are no progress."""
    starts, told = Starts(monkeypatch, [3, 5, 4, 4], ActorDiedError()), list[Line]()
    with pytest.raises(TemporaryError, match=r"^step 6: actors died 3 times before it was done"):
        ray_actors.work(job(), told.append)
    assert starts.count == 4
    assert [line["step"] for line in told] == [3, 5]


class Actor:
    def breaks(self) -> None:
        raise RuntimeError("Connection closed by peer")

    def dies(self) -> None:
        time.sleep(1)
        os._exit(1)

    def has_ours(self) -> None:
        time.sleep(1)
        raise TrainingError("step 3: the loss is nan")

    def answers(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("other", "told"),
    [("dies", ActorDiedError), ("has_ours", TrainingError), ("answers", RuntimeError)],
)
def test_what_ended_a_step_is_told_and_not_the_broken_connection(
    folder: Path, other: str, told: type[Exception]
) -> None:
    made: Any = ray.remote(num_cpus=0)(Actor)
    actors = [made.remote() for _ in range(2)]
    with pytest.raises(told):
        ray_actors._all([actors[0].breaks.remote(), getattr(actors[1], other).remote()])
