"""The training from one step to the last: in which order groups come, what is measured, saved and kept."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from pipeline.finetuning.checkpoints import FOLDER, Checkpoints
from pipeline.finetuning.config import FinetuneConfig
from pipeline.finetuning.examples import Examples
from pipeline.finetuning.export import export
from pipeline.finetuning.held_out import MEASURE, HeldOut, Measured
from pipeline.finetuning.progress import Progress
from pipeline.finetuning.sampling import group_of, steps
from pipeline.finetuning.student import Student
from pipeline.finetuning.trainer import Trainer
from pipeline.scoring import Scorer
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.manifest import Stamps


@dataclass
class Loop:
    """One process's work. What it needs to go on is in its checkpoints."""

    config: FinetuneConfig
    examples: Examples
    start: Scorer
    student: Student
    trainer: Trainer
    held_out: HeldOut | None
    output: Directory
    checkpoints: Checkpoints
    progress: Progress
    measured: dict[int, float] = field(default_factory=dict)
    best_step: int | None = None

    def run(self, beat: Callable[[int], None]) -> None:
        """Train until all steps are done or patience is at its end. beat: is told each step's pairs."""
        training, group_size = self.config.training, self.config.data.train_group_size
        with_scores = self.config.loss.needs_scores
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
            groups = [
                group_of(
                    self.examples[number], group_size, training.seed, epoch, number, with_scores=with_scores
                )
                for number in map(int, numbers)
            ]
            did = self.trainer.step(groups)
            self.progress.add(self.trainer.steps_done, epoch, did)
            beat(did.pairs)
            is_better = self._is_due_to_measure and self._measure()
            if is_better or self._is_due_to_save:
                self._save()

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

    def _measure(self) -> bool:
        """Measure the model as it is, and keep it where it is better than all before."""
        done = self.trainer.steps_done
        with TemporaryDirectory(prefix="rayrank-model-") as name:
            folder = Path(name)
            self.write_model(folder)
            value = self.measure(folder).mean
            self.progress.add_measure(done, MEASURE, value)
            self.measured[done] = value
            is_better = self.best_step is None or value > self.measured[self.best_step]
            if is_better:
                upload(folder, self.output, _best(done))
                self.best_step = done
        return is_better

    def measure(self, folder: Path) -> Measured:
        assert self.held_out is not None
        with torch.random.fork_rng():  # what is drawn while a model loads is not drawn from the training
            return self.held_out.measure(folder, self.config.scorer)

    def write_model(self, folder: Path) -> None:
        """The model as it is now, in the published layout."""
        export(self.student.merged(), self.start.checkpoint, folder)

    def fetch_best(self, folder: Path) -> None:
        """The kept model; the one at hand where nothing was measured."""
        if self.best_step is None:
            self.write_model(folder)
        else:
            download(self.output, _best(self.best_step), folder)

    def _save(self) -> None:
        self.progress.write()
        self.checkpoints.save(self.trainer.state(), self.measured, self.best_step)
        # The checkpoint that leads to it is written: the models before it are not needed any more.
        for name in self.output.names(FOLDER):
            if name.startswith("model-") and (
                self.best_step is None or name != Path(_best(self.best_step)).name
            ):
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
    """The other way round."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in output.names(name):
        data = output.read(f"{name}/{entry}") if "." in entry else None
        if data is None:
            download(output, f"{name}/{entry}", folder / entry)
        else:
            (folder / entry).write_bytes(data)
