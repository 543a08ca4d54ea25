"""A line a step, for people and programs: OUTPUT/metrics.jsonl; now and then a log line with the time left.

{"step": 1, "epoch": 0, "loss": ..., "learning_rate": ..., "grad_norm": ..., "pairs": ..., "tokens": ...,
"time": ...}, and beside it {"step": 100, "nDCG@10": ..., "time": ...} where held-out queries are measured.
Step 1 is the first; time is in seconds since 1970.
"""

import json
import math
import time
from typing import Any

from pipeline import log
from pipeline.finetuning import event_files
from pipeline.finetuning.trainer import Step
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.sealed import Stamp

METRICS = "metrics.jsonl"
_MEASURING = "measuring"
_LOG_EVERY_S, _WRITE_EVERY_S = 30.0, 10.0

Line = dict[str, Any]


def measuring(step: int, queries: int) -> Line:
    """A line for the log alone."""
    return {"step": step, _MEASURING: queries}


def place_of(line: Line) -> tuple[int, int]:
    """Of a line among all: a step's, that it is about to be measured, and what was measured."""
    return line["step"], 0 if "loss" in line else 1 if _MEASURING in line else 2


class Metrics:
    """The file, by the first of the workers."""

    def __init__(self, output: Directory, done: int) -> None:
        """done: the steps after which it goes on."""
        self._output = output
        # What a killed start did after its last checkpoint is done, and told, again; all, if it had none.
        self._lines = [line for line in _read(output) if line["step"] <= done] if done else []
        self._written = time.monotonic()
        self._in_event_files = done or -1

    def add(self, step: int, epoch: int, did: Step) -> Line:
        """A step is done, number `step` of all."""
        self._lines.append(
            {
                "step": step,
                "epoch": epoch,
                "loss": did.loss,
                "learning_rate": did.learning_rate,
                "grad_norm": did.grad_norm if math.isfinite(did.grad_norm) else None,
                "pairs": did.pairs,
                "tokens": did.tokens,
                "time": round(time.time(), 3),
            }
        )
        return self._lines[-1]

    def add_measure(self, step: int, measure: str, value: float) -> Line:
        self._lines.append({"step": step, measure: value, "time": round(time.time(), 3)})
        return self._lines[-1]

    def write_now_and_then(self) -> None:
        """So that people who look see it grow."""
        if time.monotonic() - self._written >= _WRITE_EVERY_S:
            self.write()

    def write(self) -> Stamp:
        """A store has no file to append to: it is written anew, whole."""
        self._written = time.monotonic()
        return self._output.write(METRICS, "".join(f"{json.dumps(line)}\n" for line in self._lines).encode())

    def write_with_events(self) -> Stamp:
        """The file, and what TensorBoard reads, of the steps since this was last done."""
        event_files.write(self._output, (line for line in self._lines if line["step"] > self._in_event_files))
        self._in_event_files = self._lines[-1]["step"]
        return self.write()

    @property
    def pairs(self) -> int:
        return sum(line.get("pairs", 0) for line in self._lines)

    @property
    def last_loss(self) -> float:
        """Mean of the last tenth of the steps."""
        losses: list[float] = [line["loss"] for line in self._lines if "loss" in line]
        last = losses[-max(1, len(losses) // 10) :]
        return sum(last) / len(last)


class Progress:
    """What the log tells of a start, by the process that was started."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._start = self._logged = time.monotonic()
        self._before: int | None = None

    def tell(self, line: Line) -> None:
        step = line["step"]
        if _MEASURING in line:
            log.info("measuring", steps=f"{step}/{self._steps}", queries=line[_MEASURING])
            return
        if "loss" not in line:
            told = {name: f"{line[name]:.4f}" for name in line.keys() - {"step", "time"}}
            log.info("measured", steps=f"{step}/{self._steps}", **told)
            return
        if self._before is None:
            self._before = step - 1
            if self._before:
                log.info("goes on", steps=f"{self._before}/{self._steps}")
        now = time.monotonic()
        if now - self._logged >= _LOG_EVERY_S:
            self._logged = now
            left_s = (now - self._start) / (step - self._before) * (self._steps - step)
            log.info(
                "progress",
                steps=f"{step}/{self._steps}",
                left_min=left_s / 60,
                loss=f"{line['loss']:.4f}",
                learning_rate=f"{line['learning_rate']:.2e}",
            )


def _read(output: Directory) -> list[Line]:
    return [json.loads(line) for line in (output.read(METRICS) or b"").splitlines()]
