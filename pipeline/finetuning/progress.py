"""A line a step, for people and programs: OUTPUT/metrics.jsonl; and a log line a minute with the time left.

{"step": 1, "epoch": 0, "loss": ..., "learning_rate": ..., "grad_norm": ..., "pairs": ..., "tokens": ...}, and
beside it {"step": 100, "nDCG@10": ...} where held-out queries are measured. Step 1 is the first.
"""

import json
import math
import time
from typing import Any

from pipeline import log
from pipeline.finetuning.trainer import Step
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.sealed import Stamp

METRICS = "metrics.jsonl"
_LOG_EVERY_S, _WRITE_EVERY_S = 30.0, 10.0


class Progress:
    """Of one start, which goes on after `done` of `steps`."""

    def __init__(self, output: Directory, steps: int, done: int) -> None:
        self._output, self._steps, self._before = output, steps, done
        # What a killed start did after its last checkpoint is done, and told, again.
        self._lines = [line for line in _read(output) if line["step"] <= done]
        self._start = self._logged = self._written = time.monotonic()

    def add(self, step: int, epoch: int, did: Step) -> None:
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
            }
        )
        now = time.monotonic()
        if now - self._logged >= _LOG_EVERY_S:
            self._logged = now
            left_s = (now - self._start) / (step - self._before) * (self._steps - step)
            log.info(
                "progress",
                steps=f"{step}/{self._steps}",
                left_min=left_s / 60,
                loss=f"{did.loss:.4f}",
                learning_rate=f"{did.learning_rate:.2e}",
            )
        if now - self._written >= _WRITE_EVERY_S:
            self.write()

    def add_measure(self, step: int, measure: str, value: float) -> None:
        self._lines.append({"step": step, measure: value})
        log.info("measured", steps=f"{step}/{self._steps}", **{measure: f"{value:.4f}"})

    def write(self) -> Stamp:
        """A store has no file to append to: it is written anew, whole."""
        self._written = time.monotonic()
        return self._output.write(METRICS, "".join(f"{json.dumps(line)}\n" for line in self._lines).encode())

    @property
    def pairs(self) -> int:
        return sum(line.get("pairs", 0) for line in self._lines)

    @property
    def last_loss(self) -> float:
        """Mean of the last tenth of the steps."""
        losses: list[float] = [line["loss"] for line in self._lines if "loss" in line]
        last = losses[-max(1, len(losses) // 10) :]
        return sum(last) / len(last)


def _read(output: Directory) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output.read(METRICS) or b"").splitlines()]
