"""The training from one step to the last: in which order groups come, what is measured, saved and kept."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import OutputError
from pipeline.finetuning.checkpoints import FOLDER, Checkpoints
from pipeline.finetuning.config import FinetuneConfig
from pipeline.finetuning.examples import Examples
from pipeline.finetuning.export import export
from pipeline.finetuning.held_out import MEASURE, HeldOut, Measured
from pipeline.finetuning.peers import Peers
from pipeline.finetuning.progress import METRICS, Line, Metrics, measuring
from pipeline.finetuning.sampling import Group, group_of, steps
from pipeline.finetuning.student import Student
from pipeline.finetuning.trainer import Trainer
from pipeline.scoring import Scorer
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.manifest import Stamps
from pipeline.temporary_folder import filling, new_folder

MODEL = "model"
_KEPT = "the trained model can't be kept"


@dataclass(frozen=True)
class Done:
    """What a training that has ended tells."""

    steps: int
    pairs: int
    loss: float
    measured: dict[int, float]
    best_step: int | None
    p_value: float | None
    files: Stamps
    """That were written to stay: the model's, and the metrics."""


@dataclass
class Loop:
    """One worker's work. What is needed to go on is in the checkpoints, which the first worker writes."""

    config: FinetuneConfig
    examples: Examples
    start: Scorer
    student: Student
    trainer: Trainer
    held_out: HeldOut | None
    output: Directory
    checkpoints: Checkpoints
    metrics: Metrics
    peers: Peers
    measured: dict[int, float] = field(default_factory=dict)
    best_step: int | None = None
    _known: dict[int, Measured] = field(default_factory=dict)

    def run(self) -> Iterator[Line]:
        """Train until all steps are done or patience is at its end. Gives each line of the metrics, and one
        for the log alone before held-out queries are measured, which may take minutes.
        """
        if self.held_out is not None and not self.measured:
            yield measuring(0, self.held_out.queries)
            yield self._measure_start()
        training = self.config.training
        order = steps(
            len(self.examples),
            training.groups_per_step,
            self.trainer.steps_done,
            self.trainer.steps,
            training.seed,
        )
        for epoch, numbers in order:
            if self.is_out_of_patience:
                return
            did = self.trainer.step(self._groups(epoch, self.peers.deal(numbers)), of=len(numbers))
            yield self.metrics.add(self.trainer.steps_done, epoch, did)
            best_before = self.best_step
            if self.held_out is not None and self._is_due_to_measure:
                yield measuring(self.trainer.steps_done, self.held_out.queries)
                yield self._measure()
            if self.peers.is_first:
                if self.best_step != best_before or self._is_due_to_save:
                    self._save()
                self.metrics.write_now_and_then()

    def _groups(self, epoch: int, numbers: npt.NDArray[np.int64]) -> list[Group]:
        size, seed = self.config.data.train_group_size, self.config.training.seed
        with_scores = self.config.loss.needs_scores
        return [
            group_of(self.examples[number], size, seed, epoch, number, with_scores=with_scores)
            for number in map(int, numbers)
        ]

    @property
    def is_out_of_patience(self) -> bool:
        patience = None if self.config.held_out is None else self.config.held_out.patience
        if patience is None or self.best_step is None:
            return False
        return sum(step > self.best_step for step in self.measured) >= patience

    @property
    def _is_due_to_measure(self) -> bool:
        done, held_out = self.trainer.steps_done, self.config.held_out
        return held_out is not None and (done % held_out.every_steps == 0 or done == self.trainer.steps)

    @property
    def _is_due_to_save(self) -> bool:
        done = self.trainer.steps_done
        return done % self.config.training.save_steps == 0 or done == self.trainer.steps

    def _measure_start(self) -> Line:
        value = self._measured(self.start.checkpoint.path, 0).mean if self.peers.is_first else math.nan
        self.measured[0] = self.peers.from_first(value)
        return self.metrics.add_measure(0, MEASURE, self.measured[0])

    def _measure(self) -> Line:
        """Measure the model as it is, and keep it where it is better than all before."""
        done, value = self.trainer.steps_done, math.nan
        with new_folder("rayrank-model-", _KEPT) as folder:
            if self.peers.is_first:
                self._write_model(folder)
                value = self._measured(folder, done).mean
            value = self.peers.from_first(value)
            self.measured[done] = value
            if self.best_step is None or value > self.measured[self.best_step]:
                self.best_step = done
                if self.peers.is_first:
                    upload(folder, self.output, _best(done))
        return self.metrics.add_measure(done, MEASURE, value)

    def _measured(self, folder: Path, step: int) -> Measured:
        """The model in `folder`, that of a step. What this start has measured it measures no second time."""
        if step not in self._known:
            assert self.held_out is not None
            self._known[step] = self.held_out.measure(folder, self.config.scorer)
        return self._known[step]

    def finish(self) -> Done:
        """Write the model that is kept. For the first worker, after the last step."""
        with new_folder("rayrank-model-", _KEPT) as folder:
            self._fetch_best(folder)
            p_value = None
            if self.best_step is not None:
                before = self._measured(self.start.checkpoint.path, 0)
                p_value = self._measured(folder, self.best_step).p_value_against(before)
            files = {**upload(folder, self.output, MODEL), METRICS: self.metrics.write_with_events()}
        return Done(
            steps=self.trainer.steps_done,
            pairs=self.metrics.pairs,
            loss=self.metrics.last_loss,
            measured=self.measured,
            best_step=self.best_step,
            p_value=p_value,
            files=files,
        )

    def _write_model(self, folder: Path) -> None:
        """The model as it is now, in the published layout."""
        merged = self.student.merged()
        with filling(folder, _KEPT):
            export(merged, self.start.checkpoint, folder, self.student.says)

    def _fetch_best(self, folder: Path) -> None:
        """The kept model; the one at hand where nothing was measured."""
        if self.best_step is None:
            self._write_model(folder)
        else:
            with filling(folder, _KEPT):
                download(self.output, _best(self.best_step), folder)

    def _save(self) -> None:
        self.metrics.write_with_events()
        self.checkpoints.save(self.trainer.state(), self.measured, self.best_step)
        # The checkpoint that leads to it is written: models that none leads to are not needed any more.
        led_to = {*self.checkpoints.best_steps(), self.best_step}
        kept = {Path(_best(step)).name for step in led_to if step is not None}
        for name in self.output.names(FOLDER):
            if name.startswith("model-") and name not in kept:
                self.output.remove(f"{FOLDER}/{name}")


def _best(step: int) -> str:
    return f"{FOLDER}/model-{step:08d}"


def upload(folder: Path, output: Directory, name: str) -> Stamps:
    """Write all files of a local folder below `name`."""
    stamps = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        written = f"{name}/{file.relative_to(folder)}"
        with file.open("rb") as source, output.writing(written) as stream:
            shutil.copyfileobj(source, stream)
        stamps[written] = stream.stamp
    return stamps


def download(output: Directory, name: str, folder: Path) -> None:
    """The other way round. Raises OutputError where nothing is there."""
    entries, files = output.names(name), output.files(name)
    if not entries:
        raise OutputError(
            f"{output.url}/{name}: was removed before the job ended. Remove the output, and start again"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        if entry in files:
            (folder / entry).write_bytes(output.read(f"{name}/{entry}") or b"")
        else:
            download(output, f"{name}/{entry}", folder / entry)
