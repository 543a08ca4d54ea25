"""What makes a network's layers faster where it only evaluates.

GELU writes over its input. And for linear layers on some CPUs, oneDNN gets the weights in its own layout,
made once and not in every call, and adds bias, GELU and the states that go around a layer while it
multiplies, by the operators that torch.compile puts in their place (torch/_inductor/mkldnn_ir.py).
"""

from typing import Any

import torch
from torch import nn
from transformers.activations import GELUActivation

_ROWS = 1024
"""Tokens a call that the layout is chosen for. It was as fast for 7 and for 4,096."""


def prepack(network: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Change a network's backbone in place where it is faster so; it is for evaluation alone then."""
    if prepacks(device, dtype):
        replace_linear(network.base_model, dtype)


def prepacks(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN with weights in its own layout is faster than what torch does.

    In bfloat16 torch takes oneDNN, too, where the chip can. In float32 it takes MKL, which is slower on AMD's
    chips with AVX-512: these all multiply bfloat16, and have no AMX. On Intel's chips MKL is as fast, and the
    processes of a machine share the weights as they lie in the file (benchmarks/scorer.md).
    """
    if device.type != "cpu" or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    chip = torch.cpu.get_capabilities()
    return dtype == torch.float32 and chip.get("avx512_bf16", False) and not chip.get("amx_bf16", False)


def gelu_in_place(network: nn.Module) -> None:
    """Of BERT and its kin, the exact one: what it reads, a linear layer made for it alone.

    A layer's widest states then take memory once, not twice, which is faster on a CPU (benchmarks/scorer.md).
    The bits are the same.
    """
    module: Any
    for module in network.modules():
        if _has_exact_gelu(module):
            module.intermediate_act_fn.act = torch.ops.aten.gelu_


def replace_linear(network: nn.Module, dtype: torch.dtype) -> None:
    """All linear layers whose weights are of this dtype."""
    for name, child in [*network.named_children()]:
        replace_linear(child, dtype)
        if type(child) is nn.Linear and child.weight.dtype == dtype:
            setattr(network, name, PrepackedLinear(child, gelu=name == "dense" and _took_gelu(network)))
        elif _adds_residual(child):
            setattr(network, name, _PrepackedOutput(child))


def _adds_residual(module: Any) -> bool:
    """Whether it is what BERT and its kin do after attention, and after the layer with GELU."""
    children = dict(module.named_children())
    return children.keys() == {"dense", "LayerNorm", "dropout"} and isinstance(
        children["dense"], PrepackedLinear
    )


def _took_gelu(module: Any) -> bool:
    """Whether what BERT and its kin do after `dense` is the exact GELU alone, which is taken out then."""
    exact = _has_exact_gelu(module)
    if exact:
        module.intermediate_act_fn = nn.Identity()
    return exact


def _has_exact_gelu(module: Any) -> bool:
    activation = getattr(module, "intermediate_act_fn", None)
    return isinstance(activation, GELUActivation) and activation.act is nn.functional.gelu


class PrepackedLinear(nn.Module):
    """(..., in) to (..., out), as the layer that it is made of; with GELU behind it, if asked."""

    def __init__(self, linear: nn.Linear, *, gelu: bool) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS)
        bias = dict(linear.named_parameters()).get("bias")
        self._bias = None if bias is None else bias.detach()
        self._after: tuple[str, list[float], str] = ("gelu", [], "none") if gelu else ("none", [], "")

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            states, self._weight, self._bias, *self._after
        )
        return result

    def plus(self, states: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """(..., in) and (..., out) to (..., out), for a layer without GELU."""
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            states, residual, self._weight, self._bias, "add"
        )
        return result


class _PrepackedOutput(nn.Module):
    """Of (..., in) states and (..., out) of before: LayerNorm(dense(states) + before). No dropout."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.dense, self._norm = output.dense, output.LayerNorm

    def forward(self, states: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self._norm(self.dense.plus(states, before))
        return normed
