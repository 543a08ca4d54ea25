"""`dtype: auto`: the fastest dtype that a device computes natively, asked of the chip and not of its name."""

import platform

import torch

from pipeline.errors import ModelError
from pipeline.scoring.config import Dtype, ScorerConfig
from pipeline.scoring.device import resolve_device


def has_bfloat16(device: torch.device) -> bool:
    """Whether the chip multiplies bfloat16 itself, and torch lets it.

    A CPU without such instructions takes 5 times as long in bfloat16 as in float32. That torch's oneDNN is
    able to is asked too: it says yes for chips that only emulate, and no where torch was built without it.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    chip = torch.cpu.get_capabilities()
    native = any(chip.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))  # bf16: of ARM
    return native and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def fastest_dtype(name: str) -> Dtype:
    """Of a device by its name in the config. Raises ModelError for one that is not there."""
    device = resolve_device(name)
    if has_bfloat16(device):
        return "bfloat16"
    return "float32" if device.type == "cpu" else "float16"  # which every GPU computes, Apple's too


def settled(config: ScorerConfig) -> ScorerConfig:
    """With the dtype of the device at hand in place of `auto`. Raises as `fastest_dtype` does."""
    if config.dtype != "auto":
        return config
    return config.model_copy(update={"dtype": fastest_dtype(config.device)})


def check_native(config: ScorerConfig) -> None:
    """For a process that got the dtype which `auto` became elsewhere.

    Raises ModelError where the device here does not compute it natively: nobody asked for slow scores, or for
    others than the rest of the processes have.
    """
    device = resolve_device(config.device)
    if config.dtype == "float32" or (config.dtype == "float16" and device.type != "cpu"):
        return
    if config.dtype != "bfloat16" or not has_bfloat16(device):
        raise ModelError(
            f"dtype auto: became {config.dtype} on another node or in an earlier start, and node"
            f" {platform.node()} does not compute that natively on its {device.type}. Write dtype: float32,"
            f" which every node computes; or keep to nodes of one kind by label_selector; or write dtype:"
            f" {config.dtype}, to compute it there all the same",
            field="dtype",
        )
