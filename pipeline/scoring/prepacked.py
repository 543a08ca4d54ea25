"""Linear layers in bfloat16 on a CPU: oneDNN gets their weights in its own layout, made once and not in every
call, and adds bias and GELU while it multiplies.

By the operators that torch.compile puts in their place (torch/_inductor/mkldnn_ir.py).
"""

from typing import Any

import torch
from torch import nn
from transformers.activations import GELUActivation

_ROWS = 1024
"""Tokens a call that the layout is chosen for. It was as fast for 7 and for 4,096."""


def prepack(network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Change a network in place where it is faster so; it is for evaluation alone then."""
    if device.type == "cpu" and dtype == torch.bfloat16 and _computes_bfloat16():
        replace_linear(network, dtype)


def replace_linear(network: nn.Module, dtype: torch.dtype) -> None:
    """All linear layers whose weights are of this dtype."""
    for module in [*network.modules()]:
        for name, child in [*module.named_children()]:
            if type(child) is nn.Linear and child.weight.dtype == dtype:
                setattr(module, name, PrepackedLinear(child, gelu=name == "dense" and _took_gelu(module)))


def _computes_bfloat16() -> bool:
    operators = torch.ops.mkldnn
    return hasattr(operators, "_linear_pointwise") and bool(operators._is_mkldnn_bf16_supported())


def _took_gelu(module: Any) -> bool:
    """Whether what BERT and its kin do after `dense` is the exact GELU alone, which is taken out then."""
    activation = getattr(module, "intermediate_act_fn", None)
    exact = isinstance(activation, GELUActivation) and activation.act is nn.functional.gelu
    if exact:
        module.intermediate_act_fn = nn.Identity()
    return exact


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
