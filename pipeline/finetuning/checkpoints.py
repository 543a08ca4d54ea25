"""From which a killed job goes on: the trainer's state every so many steps, whole or not there.

OUTPUT/checkpoints/step-00000100.pt     torch.save of the trainer's state
OUTPUT/checkpoints/step-00000100.json   written after it: its stamp, and what the job knew by then
"""

import io
import re
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from pipeline import log
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.sealed import DamagedError, Stamp, sealed, unsealed

FOLDER = "checkpoints"
_KEPT = 2
_MARKER = re.compile(r"step-(\d{8})\.json")
_FILE = re.compile(r"step-(\d{8})\.(?:json|pt)")


class Marker(BaseModel):
    """A checkpoint that is whole where its data has the stamp."""

    model_config = ConfigDict(frozen=True)

    job: str
    """The identity of the job's record."""
    step: int
    """Steps that are done."""
    data: Stamp
    measured: dict[int, float] = {}
    """nDCG@10 after so many steps."""
    best_step: int | None = None
    """The one whose model is kept in OUTPUT/model."""


class Checkpoints:
    def __init__(self, output: Directory, job: str) -> None:
        self._output, self._job = output, job

    def save(self, state: dict[str, Any], measured: dict[int, float], best_step: int | None) -> None:
        """Write one; of those before, the last is kept. What a start that was killed left of others goes."""
        step = state["steps_done"]
        with self._output.writing(f"{_name(step)}.pt") as stream:
            buffered = io.BufferedWriter(stream)
            torch.save(state, buffered)
            buffered.flush()
        marker = Marker(job=self._job, step=step, data=stream.stamp, measured=measured, best_step=best_step)
        self._output.write(f"{_name(step)}.json", sealed(marker))
        kept = {step, *self._steps()[-_KEPT:]}  # damaged ones of later steps may be there
        for name in sorted(self._output.names(FOLDER)):  # a marker before its data
            found = _FILE.fullmatch(name)
            if found and int(found[1]) not in kept:
                self._output.remove_file(f"{FOLDER}/{name}")

    @property
    def steps_done(self) -> int:
        """By the newest, whole or not."""
        return max(self._steps(), default=0)

    def best_steps(self) -> set[int]:
        """Whose models the checkpoints at hand lead to: if the newest is damaged, the one before counts."""
        markers = [marker for step in self._steps() if (marker := self._marker(step)) is not None]
        return {marker.best_step for marker in markers if marker.best_step is not None}

    def last(self) -> tuple[Marker, dict[str, Any]] | None:
        """The newest that is whole. The log tells which are not."""
        for step in reversed(self._steps()):
            marker = self._marker(step)
            data = None if marker is None else self._output.read(f"{_name(step)}.pt")
            if marker is None or data is None or not marker.data.fits(data):
                log.warning("checkpoint is damaged", file=f"{self._output.url}/{_name(step)}")
                continue
            return marker, torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        return None

    def _steps(self) -> list[int]:
        found = map(_MARKER.fullmatch, self._output.names(FOLDER))
        return sorted(int(match[1]) for match in found if match)

    def _marker(self, step: int) -> Marker | None:
        try:
            marker = unsealed(self._output.read(f"{_name(step)}.json") or b"", Marker)
        except DamagedError:
            return None
        return marker if marker.job == self._job and marker.step == step else None


def _name(step: int) -> str:
    return f"{FOLDER}/step-{step:08d}"
