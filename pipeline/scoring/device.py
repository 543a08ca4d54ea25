"""The device: which one, how many tokens it takes at once, the way there and back, and what it means that its
memory ran out.
"""

import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline import log
from pipeline.errors import DeviceError, ModelError
from pipeline.scoring.config import ScorerConfig

_CPU_BATCH_TOKENS = {"float32": 1024, "float16": 1024, "bfloat16": 4096}
"""In float32 small enough that a layer's activations stay in a core's cache (benchmarks/scorer.md). bfloat16
on AMX gains by larger batches, at widths 384 and 768: 1.1 times as many pairs/s as with 1,024, and 1.4 times
where weights are not prepacked (12 layers, 2026-11-27 and -25). A table, not a measurement at load: two runs
of a job make the same batches, and with them the same bytes."""
_CPU_CALL_TOKENS, _GPU_CALL_TOKENS = 32, 256
"""What a batch costs beside its tokens, as so many of them: on a CPU as measured (12 layers of width 384, one
thread: 20 ms a batch, 0.6 ms a token). On an H200, gemma-2b's shape, 64 candidates a query, ran at 312, 474
and 523 pairs/s with 16,384, 4,096 and 1,024 (53, 28 and 18 % padding): a batch's own cost is 370 tokens at
most (benchmarks/gpu.md)."""
_CPU_LENGTH_STEP = {"bfloat16": 8}
"""Padded batches have lengths that are multiples of this. In bfloat16 oneDNN keeps what it makes for each
shape of a product, so that with any length a process grows: from 700 to 1,850 MB in 300 small calls of a
DeBERTa of width 768 (and to 1,020 MB with 8, in a fifth less time), from 700 to 1,810 MB in 200 of a Qwen3
(and to 900 MB, in a sixth less time; one thread, 2026-11-27)."""
_MAX_BATCH_TOKENS = 65_536
"""Past this a GPU is busy anyway, and only memory grows."""
_UNKNOWN_WIDTH = 8192
"""Of a network whose config names it otherwise: a wide one's."""
_OUT_OF_MEMORY = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory"
    r"|could not (create a (primitive|memory object)|execute a primitive)$"
    r"|Failed to allocate \d+ bytes of memory"
    r"|std::bad_alloc|can't alloc$"
    r"|MPS backend out of memory"
    r"|(CUDA|HIP) error: out of memory"
    r"|(CUBLAS|CUDNN|HIPBLAS)_STATUS_ALLOC_FAILED",
    re.MULTILINE,
)
"""How it is said without torch.OutOfMemoryError: by the CPU's allocator (c10/core/impl/alloc_cpu.cpp), by
oneDNN, which keeps its status to itself (dnnl.hpp) and says in other words what it can't compute at all, by
OpenVINO (intel_cpu's cpu_memory.cpp, and Xbyak, which writes its code), by MPS, and by parts of CUDA that
allocate past torch."""
_FAILED = re.compile(
    r"(CUDA|HIP|cuDNN|MIOpen)( driver)? error|(CUBLAS|CUDNN|CUSPARSE|HIPBLAS)_STATUS_"
    r"|Triton Error \[(CUDA|HIP)\]|No (CUDA|HIP) GPUs are available|Unexpected error from cudaGetDeviceCount"
)
"""How a card's own errors are said where they are no torch.AcceleratorError."""


class Device:
    """A torch device and its token budget, which shrinks where memory runs out."""

    def __init__(self, config: ScorerConfig, model_config: Any) -> None:
        """model_config: the network's, which tells how wide a token is."""
        self.torch = resolve_device(config.device)
        self.call_tokens = _CPU_CALL_TOKENS if self.torch.type == "cpu" else _GPU_CALL_TOKENS
        """What a batch costs beside its own tokens, as so many of them."""
        self.max_batch_tokens = config.max_batch_tokens or _batch_tokens(
            self.torch, config.dtype, model_config
        )
        self._length_step = _CPU_LENGTH_STEP.get(config.dtype, 1) if self.torch.type == "cpu" else 1
        self._positions = getattr(model_config, "max_position_embeddings", None)

    @property
    def ahead(self) -> int:
        """Batches that are launched before the output of one is waited for, so that a GPU never waits.

        A CPU computes while it launches, so that nothing is gained there.
        """
        return 1 if self.torch.type == "cuda" else 0

    def filled(self, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Lengths of padded batches whose longest sequences have these, within the positions of the model."""
        filled = lengths + -lengths % self._length_step
        return filled if self._positions is None else np.maximum(lengths, np.minimum(filled, self._positions))

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of the CPU on the device. On a CUDA card, calls return before it is there."""
        if self.torch.type != "cuda":
            return tensor.to(self.torch)
        return tensor.pin_memory().to(self.torch, non_blocking=True)

    def fetch(self, output: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Start to copy an output to the CPU, in float32; what comes back waits for it and gives it.

        A GPU tells its errors late: then, at the latest, those of the output are told.
        """
        if self.torch.type != "cuda":
            on_cpu = output.float().cpu()
            return lambda: on_cpu
        pinned = torch.empty(output.shape, dtype=torch.float32, pin_memory=True)
        pinned.copy_(output.float(), non_blocking=True)
        copied = torch.cuda.current_stream(self.torch).record_event()

        def wait() -> torch.Tensor:
            copied.synchronize()
            return pinned.clone()  # pinned memory is scarce: it serves the next batches

        return wait

    def shrink(self, failed_tokens: int) -> None:
        """Halve the budget for good, since a batch of so many tokens found no room."""
        self.max_batch_tokens = failed_tokens // 2
        log.warning(
            "out of memory", device=self.torch, batch_tokens=failed_tokens, from_now=self.max_batch_tokens
        )

    def release(self) -> bool:
        """Give back memory that torch keeps for later. Returns whether there may be more now."""
        if self.torch.type == "cuda":
            torch.cuda.empty_cache()
        return self.torch.type == "cuda"

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether it says that this device's memory ran out, and nothing else."""
        return is_out_of_memory(error) and (self.torch.type == "cpu" or not isinstance(error, MemoryError))


def is_out_of_memory(error: Exception) -> bool:
    """Whether it says that some memory ran out, the device's or the machine's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


def failure(device: torch.device, error: Exception, when: str) -> DeviceError | None:
    """What to raise where it says that the device itself failed. when: as in "on pair 7"."""
    if device.type == "cpu" or not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return None
    is_of_device = isinstance(error, torch.AcceleratorError) or _FAILED.search(str(error)) is not None
    # Not where this torch has no code for the card, which no other process would have either.
    if not is_of_device or "no kernel image" in str(error) or _answers(device):
        return None
    told = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return DeviceError(f"the device {device} failed {when}: {told}")


def _answers(device: torch.device) -> bool:
    """Whether it still computes: some of CUDA's errors are of one call alone."""
    try:
        return torch.ones(2, device=device).sum().item() == 2
    except Exception:  # whatever the call raises, the card has not computed
        return False


def resolve_device(name: str) -> torch.device:
    """`auto` takes the GPU where there is one.

    Raises ModelError for a device that is not there, or DeviceError where this process was given a card that
    CUDA does not find any more.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        if (
            (torch.version.cuda or torch.version.hip)
            and not torch.cuda.device_count()
            and (given := _given())
        ):
            raise DeviceError(
                f"the device {name} failed: this process was given the card {given} and CUDA finds none: the"
                " card or its driver failed, or the container has lost it"
            )
        raise ModelError(
            f"device {name}: this process sees {torch.cuda.device_count()} CUDA devices; to compute on the"
            " CPU, give a job's actors num_gpus: 0, and anything else device: cpu",
            field="device",
        )
    if device.type == "cuda":
        # An image for GPUs may allow it (TORCH_ALLOW_TF32_CUBLAS_OVERRIDE): float32 is the published scores'.
        torch.backends.cuda.matmul.allow_tf32 = False
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError("device mps: not available in this process", field="device")
    return device


def _given() -> str:
    """The cards that Ray gave this process, which it does by these; "" where it gave none."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") or os.environ.get("HIP_VISIBLE_DEVICES") or ""


def _batch_tokens(device: torch.device, dtype: str, model_config: Any) -> int:
    """A token budget that leaves half of the device's memory free.

    It depends on the card's total memory and not on what is free now, so that two runs make the same
    batches and with them the same bytes.
    """
    if device.type != "cuda":
        return _CPU_BATCH_TOKENS["float32" if dtype == "auto" else dtype]  # auto: a dry run that may not ask
    width = getattr(torch, dtype).itemsize
    # The widest moment of a layer: its input and residual beside the two halves of the feed-forward.
    text_config = model_config.get_text_config()  # a model of texts and images has one for each
    hidden = _widest(text_config, "hidden_size") or _UNKNOWN_WIDTH
    floats_a_token = 4 * hidden + 3 * (_widest(text_config, "intermediate_size") or 4 * hidden)
    total = torch.cuda.get_device_properties(device).total_memory
    return int(min(_MAX_BATCH_TOKENS, max(1024, total // 2 // (floats_a_token * width * 4))))


def _widest(model_config: Any, field: str) -> int:
    """0 where the config has none. Some have one for each layer."""
    width = getattr(model_config, field, None) or 0
    return max(width) if isinstance(width, list | tuple) else int(width)
