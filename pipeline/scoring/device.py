"""The device: which one, how many tokens it takes at once, and running batches on it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from pipeline.errors import ModelError
from pipeline.scoring.batching import length_sorted_batches, pad
from pipeline.scoring.config import ScorerConfig

_CPU_BATCH_TOKENS = 1024
"""Small enough that a layer's activations stay in a core's cache; see benchmarks/scorer.md."""
_MAX_BATCH_TOKENS = 65_536
"""Past this a GPU is busy anyway, and only memory grows."""


class Forwarded(NamedTuple):
    """What a model made of encoded pairs."""

    scores: npt.NDArray[np.float32]
    """One a pair, in the caller's order: (pairs,), or (pairs, cutoffs) where several are asked for."""
    tokens: int
    """Real tokens that went through the trunk."""
    padded_tokens: int
    """The same with padding: 1 - tokens / padded_tokens of the work was for nothing."""


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


def batch_tokens(device: torch.device, config: ScorerConfig, model_config: Any) -> int:
    """The token budget: the config's, or one that leaves half of the device's memory free.

    It depends on the card's total memory and not on what is free now, so that two runs make the same
    batches and with them the same bytes.
    """
    if config.max_batch_tokens is not None:
        return config.max_batch_tokens
    if device.type != "cuda":
        return _CPU_BATCH_TOKENS
    width = getattr(torch, config.dtype).itemsize
    # The widest moment of a layer: its input and residual beside the two halves of the feed-forward.
    hidden = model_config.hidden_size
    floats_a_token = 4 * hidden + 3 * getattr(model_config, "intermediate_size", 4 * hidden)
    total = torch.cuda.get_device_properties(device).total_memory
    return int(min(_MAX_BATCH_TOKENS, max(1024, total // 2 // (floats_a_token * width * 4))))


def sigmoid(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """In float64, as the reference does: near 1 float32 has too few steps left for the exponential."""
    result: npt.NDArray[np.float32] = torch.from_numpy(scores).double().sigmoid().float().numpy()
    return result


def run_batches(
    sequences: pa.ListArray,
    max_batch_tokens: int,
    pad_id: int,
    device: torch.device,
    forward: Callable[[torch.Tensor, torch.Tensor, npt.NDArray[np.int64]], torch.Tensor],
) -> tuple[npt.NDArray[np.float32], int, int]:
    """Put every sequence through `forward(ids, mask, indices)` and restore the caller's order.

    `forward` returns (batch,) or (batch, width) float32; the result is (sequences,) or (sequences, width),
    with the real and the padded tokens.
    """
    lengths = np.diff(sequences.offsets.to_numpy())
    batches = list(length_sorted_batches(lengths, max_batch_tokens))
    outputs, padded_tokens = [], 0
    for batch in batches:
        ids, mask = pad(sequences, batch, pad_id)
        padded_tokens += ids.size
        # What comes out stays on the device until the end: to fetch it here would stall a GPU every batch.
        outputs.append(forward(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device), batch))
    if not batches:
        return np.zeros(0, np.float32), 0, 0
    sorted_outputs = torch.cat(outputs).float().cpu().numpy()
    in_order = np.empty_like(sorted_outputs)
    in_order[np.concatenate(batches)] = sorted_outputs
    return in_order, int(lengths.sum()), padded_tokens
