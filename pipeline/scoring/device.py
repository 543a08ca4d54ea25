"""The device: which one, how many tokens it takes at once, and running batches on it."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pipeline import log
from pipeline.errors import ModelError, ScoringError
from pipeline.scoring.batching import Group, IndexArray, Sequences, cut, cut_without_padding
from pipeline.scoring.config import ScorerConfig

_CPU_BATCH_TOKENS = 1024
"""Small enough that a layer's activations stay in a core's cache; see benchmarks/scorer.md."""
_CPU_CALL_TOKENS, _GPU_CALL_TOKENS = 32, 4096
"""What a batch costs beside its tokens, as so many of them: on a CPU as measured (12 layers of width 384, one
thread: 20 ms a batch, 0.6 ms a token); a GPU's is a guess, none was at hand."""
_MAX_BATCH_TOKENS = 65_536
"""Past this a GPU is busy anyway, and only memory grows."""
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""How it is said without torch.OutOfMemoryError: by the CPU's allocator (c10/core/impl/alloc_cpu.cpp), by
MPS, and by parts of CUDA that allocate past torch."""

Forward = Callable[[torch.Tensor, torch.Tensor, IndexArray], torch.Tensor]
"""(ids, mask, indices) of a batch, the first two (batch, length), to (batch,) or (batch, width) float32."""


class Forwarded(NamedTuple):
    """What a model made of encoded pairs."""

    scores: npt.NDArray[np.float32]
    """One a row of EncodedPairs.inputs, as the head gives it: (inputs,), or (inputs, cutoffs) for several."""
    tokens: int
    """Real tokens that went through the backbone."""
    padded_tokens: int
    """The same with padding: 1 - tokens / padded_tokens of the work was for nothing."""


class Device:
    """A torch device and its token budget, which shrinks where memory runs out."""

    def __init__(self, config: ScorerConfig, model_config: Any, *, drops_padding: bool = False) -> None:
        """drops_padding: what `run` is handed leaves padding out, so that only real tokens count."""
        self.torch = resolve_device(config.device)
        self._drops_padding = drops_padding
        self._call_tokens = _CPU_CALL_TOKENS if self.torch.type == "cpu" else _GPU_CALL_TOKENS
        self.max_batch_tokens = config.max_batch_tokens or _batch_tokens(
            self.torch, config.dtype, model_config
        )

    def run(
        self, sequences: Sequences, groups: Iterable[Group], pad_id: int, forward: Forward
    ) -> tuple[npt.NDArray[np.float32], int, int]:
        """Put every sequence through `forward`, no batch holding more than one group's.

        groups: together, every sequence once. The result is (sequences,) or (sequences, width) in the
        caller's order, with the real and the padded tokens. Where the device's memory runs out, the budget is
        halved for good and the batch done again. Raises ScoringError for a sequence that never fits, or on
        which `forward` fails in another way; its index is that of the sequence.
        """
        done, outputs, padded_tokens, budget = [], [], 0, self.max_batch_tokens
        for members, prefix in groups:
            left = sequences.longest_first(members)
            sizes = self._cut(sequences, left, prefix)
            while len(left):
                tokens = prefix + int(sequences.lengths[left[0]])
                batch = left[: sizes[-1]]
                ids, mask = sequences.pad(batch, pad_id)
                output = self._attempt(ids, mask, batch, forward)
                if output is not None:
                    left = left[len(batch) :]
                    sizes.pop()
                    padded_tokens += int(mask.sum()) if self._drops_padding else ids.size
                    done.append(batch)
                    outputs.append(output)
                elif len(batch) > 1:
                    self._shrink(int(mask.sum()) if self._drops_padding else len(batch) * tokens)
                    sizes = self._cut(sequences, left, prefix)
                else:
                    self.max_batch_tokens = budget  # batches were not too large, this sequence is
                    raise ScoringError(
                        int(batch[0]), f"its {tokens} tokens alone need more memory than {self.torch} has"
                    )
        if not done:
            return np.zeros(0, np.float32), 0, 0
        fetched = torch.cat(outputs).numpy()
        in_order = np.empty_like(fetched)
        in_order[np.concatenate(done)] = fetched
        return in_order, int(sequences.lengths.sum()), padded_tokens

    def _cut(self, sequences: Sequences, left: IndexArray, prefix: int) -> list[int]:
        """The sizes of the batches to come, the next one last."""
        lengths = sequences.lengths[left]
        if self._drops_padding:
            sizes = cut_without_padding(lengths, self.max_batch_tokens)
        else:
            sizes = cut(lengths, prefix, self.max_batch_tokens, self._call_tokens)
        return [int(size) for size in sizes[::-1]]

    def _attempt(
        self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64], batch: IndexArray, forward: Forward
    ) -> torch.Tensor | None:
        """None where memory ran out: said after the exception, whose frames hold what filled it, is gone."""
        try:
            output = forward(
                torch.from_numpy(ids).to(self.torch), torch.from_numpy(mask).to(self.torch), batch
            )
            return output.float().cpu()  # a GPU tells its errors late; here they are still this batch's
        except Exception as error:
            if not self._is_out_of_memory(error):
                raise self._named(error, ids, mask, batch, forward) from error
        return None

    def _shrink(self, failed_tokens: int) -> None:
        self.max_batch_tokens = failed_tokens // 2
        log.warning(
            "out of memory", device=self.torch, batch_tokens=failed_tokens, from_now=self.max_batch_tokens
        )
        if self.torch.type == "cuda":
            torch.cuda.empty_cache()

    def _is_out_of_memory(self, error: Exception) -> bool:
        if isinstance(error, torch.OutOfMemoryError):
            return True
        if isinstance(error, MemoryError):
            return self.torch.type == "cpu"
        return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)

    def _named(
        self,
        error: Exception,
        ids: npt.NDArray[np.int64],
        mask: npt.NDArray[np.int64],
        batch: IndexArray,
        forward: Forward,
    ) -> ScoringError:
        """The error by the sequence that causes it. Each is tried alone, but not on a broken GPU."""
        reason = f"{type(error).__name__}: {error}"
        if self.torch.type == "cpu":
            for row, index in enumerate(batch):
                one = slice(row, row + 1)
                try:
                    forward(torch.from_numpy(ids[one]), torch.from_numpy(mask[one]), batch[one])
                except Exception as alone:
                    return ScoringError(int(index), f"{type(alone).__name__}: {alone}")
        others = f" (in one batch with {len(batch) - 1} others)" if len(batch) > 1 else ""
        return ScoringError(int(batch[0]), reason + others)


def resolve_device(name: str) -> torch.device:
    """`auto` takes the GPU where there is one. Raises ModelError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"device {name}: this process sees {torch.cuda.device_count()} CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError("device mps: not available in this process")
    return device


def _batch_tokens(device: torch.device, dtype: str, model_config: Any) -> int:
    """A token budget that leaves half of the device's memory free.

    It depends on the card's total memory and not on what is free now, so that two runs make the same
    batches and with them the same bytes.
    """
    if device.type != "cuda":
        return _CPU_BATCH_TOKENS
    width = getattr(torch, dtype).itemsize
    # The widest moment of a layer: its input and residual beside the two halves of the feed-forward.
    hidden = model_config.hidden_size
    floats_a_token = 4 * hidden + 3 * getattr(model_config, "intermediate_size", 4 * hidden)
    total = torch.cuda.get_device_properties(device).total_memory
    return int(min(_MAX_BATCH_TOKENS, max(1024, total // 2 // (floats_a_token * width * 4))))
