"""A step of training: groups in, the optimizer moves, the loss comes out. Knows no files and no cluster."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.errors import TrainingError
from pipeline.finetuning.config import LossConfig, TrainingConfig
from pipeline.finetuning.losses import objective
from pipeline.finetuning.peers import ALONE, Peers
from pipeline.finetuning.sampling import Group, seed_of
from pipeline.finetuning.student import GroupEncoder, Student
from pipeline.scoring.device import failure, is_out_of_memory


@dataclass(frozen=True)
class Step:
    """What one step did."""

    loss: float
    learning_rate: float
    grad_norm: float
    """Before clipping. Not finite where float16 overflowed; such a step moves nothing."""
    pairs: int
    tokens: int


class Trainer:
    """AdamW with a linear schedule, as transformers' Trainer has them by default."""

    def __init__(
        self,
        student: Student,
        encoder: GroupEncoder,
        training: TrainingConfig,
        loss: LossConfig,
        steps: int,
        peers: Peers = ALONE,
    ) -> None:
        """steps: of the whole training, which the schedule runs over."""
        self._student, self._encoder, self._training, self._loss = student, encoder, training, loss
        self._peers = peers
        self.steps, self.steps_done = steps, 0
        self._device = next(iter(student.trained.values())).device
        # Not fused, a step of MiniLM's 23 M parameters takes five times as long on a CPU.
        self._optimizer = torch.optim.AdamW(
            _decayed_and_not(student.module, training.weight_decay), lr=training.learning_rate, fused=True
        )
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=training.dtype == "float16")

    def step(self, groups: Sequence[Group], of: int | None = None) -> Step:
        """One step of the optimizer over all groups, per_device_train_batch_size of them at a time.

        of: how many groups the step has, where these are one worker's part of them. What comes back is of the
        whole step, for all workers alike. Raises TrainingError where the loss is no number, or the gradients
        are none outside of float16, and where memory runs out; DeviceError where a GPU failed.
        """
        try:
            return self._step(groups, of)
        except Exception as error:
            if (broken := failure(self._device, error, f"in step {self.steps_done + 1}")) is not None:
                raise broken from error
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"step {self.steps_done + 1}: the memory of {self._device} ran out. Lower"
                " training.per_device_train_batch_size (with more gradient_accumulation_steps the training is"
                " the same), data.max_len or data.train_group_size, or set training.gradient_checkpointing"
            ) from error

    def _step(self, groups: Sequence[Group], of: int | None) -> Step:
        # Dropout follows from seed, step and worker, whoever goes on with whose checkpoint.
        torch.manual_seed(seed_of(self._training.seed, self.steps_done, self._peers.rank))
        rate = self._training.learning_rate * schedule(
            self.steps_done, self.steps, self._training.warmup_ratio
        )
        for settings in self._optimizer.param_groups:
            settings["lr"] = rate
        self._optimizer.zero_grad()
        self._scaler.scale(torch.zeros((), device=self._device))  # makes its scale, also where no group is
        loss, pairs, tokens = 0.0, 0, 0
        size = self._training.per_device_train_batch_size
        for batch in (groups[first : first + size] for first in range(0, len(groups), size)):
            share = len(batch) / (of or len(groups))
            encoded = self._encoder.encode(batch)
            batch_loss = self._loss_of(batch, encoded) * share
            torch.autograd.backward(self._scaler.scale(batch_loss))
            loss += batch_loss.item()
            pairs, tokens = pairs + len(encoded), tokens + int(encoded.tokens.sum())
        loss, all_pairs, all_tokens = self._peers.total([loss, pairs, tokens])
        self._check(loss, "loss")
        self._peers.sum_gradients(self._student.trained.values())
        norm = self._move()
        self.steps_done += 1
        return Step(loss, rate, norm, int(all_pairs), int(all_tokens))

    def _loss_of(self, groups: Sequence[Group], encoded: Any) -> torch.Tensor:
        dtype = getattr(torch, self._training.dtype)
        with torch.autocast(self._device.type, dtype=dtype, enabled=dtype != torch.float32):
            scores = self._student.scores(encoded)
        scores = scores.view(len(groups), -1, scores.shape[-1])
        teacher = None
        if self._loss.needs_scores:
            teacher = torch.tensor([group.scores for group in groups], device=self._device)
        return objective(scores, teacher, self._loss)

    def _move(self) -> float:
        """Clip the gradients and move along them. Gives their norm before."""
        self._scaler.unscale_(self._optimizer)
        norm = float(
            torch.nn.utils.clip_grad_norm_(self._student.trained.values(), self._training.max_grad_norm)
        )
        if not self._scaler.is_enabled():
            self._check(norm, "gradient's norm")
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return norm

    def _check(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            dtype = self._training.dtype
            way_out = (
                "are the weights whole?" if dtype == "float32" else f"try dtype float32 in place of {dtype}"
            )
            raise TrainingError(
                f"step {self.steps_done + 1}: the {what} is {value}. Take a lower training.learning_rate or"
                f" more warmup_ratio; {way_out}"
            )

    def state(self) -> dict[str, Any]:
        """All that the next step depends on beside its groups: tensors and plain values."""
        return {
            "steps_done": self.steps_done,
            "weights": {name: each.detach() for name, each in self._student.trained.items()},
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        with torch.no_grad():
            for name, parameter in self._student.trained.items():
                parameter.copy_(state["weights"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.steps_done = state["steps_done"]


def schedule(step: int, steps: int, warmup_ratio: float) -> float:
    """The share of the learning rate at a step, numbered from 0: up from 0 in the warm-up, then down to 0.

    As transformers has it (optimization.py, get_linear_schedule_with_warmup).
    """
    warmup = math.ceil(steps * warmup_ratio)
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (steps - step) / max(1, steps - warmup))


def _decayed_and_not(module: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trained parameters in two: those that decay, and biases and the weights of norms, which don't.

    As transformers' Trainer parts them: what belongs to a norm is told by the module's class.
    """
    plain = {
        f"{prefix}.{name}".lstrip(".")
        for prefix, part in module.named_modules()
        if "norm" in type(part).__name__.lower()
        for name, _ in part.named_parameters(recurse=False)
    }
    decayed: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            (others if name in plain or name.endswith("bias") else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
