"""Attention of a training on a CPU, where torch's backward of it is slow in any dtype but float32."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode


class AttentionInFloat32(TorchFunctionMode):
    """While it is on, `scaled_dot_product_attention` computes in float32 and gives the dtype it was given.

    In bfloat16 torch 2.13's backward takes 1.4 to 8 times as long on a CPU with AMX, the more the shorter the
    texts are: two thirds of a step of MiniLM on pairs of 50 tokens.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is not scaled_dot_product_attention:
            return func(*args, **kwargs)
        dtype = args[0].dtype
        with torch.autocast("cpu", enabled=False):
            attended = func(
                *map(_as_float32, args), **{name: _as_float32(each) for name, each in kwargs.items()}
            )
        return attended.to(dtype)


def _as_float32(value: Any) -> Any:
    """A tensor of numbers in float32. A mask of booleans stays as it is, and so does what is no tensor."""
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
