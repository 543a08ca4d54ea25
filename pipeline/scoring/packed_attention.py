"""Attention where sequences lie end to end in one row: each attends to itself alone.

Registered with transformers' AttentionInterface, so that a network's own modules call it. Two ways: on a CPU
runs of sequences of one length, each run in one call; on a CUDA card torch's varlen_attn, all in one call.
"""

import inspect
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
import transformers

RUNS, VARLEN = "rayrank_runs", "rayrank_varlen"
_WIDEST_HEAD = 256
"""Flash attention's limit; it takes heads whose width is a multiple of 8."""
_FIRST_CAPABILITY = (8, 0)
"""Of the cards that flash attention runs on: Ampere and later."""
_KEYS_STEP = {torch.bfloat16: 16}
"""On a CPU with AMX torch's attention takes up to twice as long for keys whose number is no multiple of it
(benchmarks/attention.py). float32 gains little."""


class Spans(NamedTuple):
    """Where sequences lie in a row of tokens."""

    runs: list[tuple[int, int]]
    """Length of the sequences, and number of them that stand one after another. Empty but for RUNS."""
    bounds: torch.Tensor
    """(sequences + 1,) int32: the first token of each, and past the last."""
    longest: int


def implementation(device: torch.device, dtype: torch.dtype, head_width: int, *, windows: bool) -> str | None:
    """The one to set as a network's attention there, or None: padded batches are its best way.

    windows: some layers attend to tokens nearby alone.
    """
    if device.type == "cpu":
        return RUNS
    if device.type != "cuda":
        return None
    function = varlen_function()
    fits = (
        dtype in (torch.float16, torch.bfloat16)
        and head_width <= _WIDEST_HEAD
        and head_width % 8 == 0
        and torch.cuda.get_device_capability(device) >= _FIRST_CAPABILITY
        and function is not None
        and (not windows or "window_size" in parameters(function))
    )
    return VARLEN if fits else None


@cache
def varlen_function() -> Callable[..., Any] | None:
    """torch's, where this torch has it."""
    name = "torch.nn.attention.varlen"
    return import_module(name).varlen_attn if find_spec(name) is not None else None


@cache
def parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def varlen(
    function: Callable[..., Any],
    parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    spans: Spans,
    scaling: float,
    window: int | None = None,
) -> torch.Tensor:
    """varlen_attn in the arguments that this torch's has: 2.10's had neither scale nor window_size.

    parts: query, key, value, (tokens, heads, width) each. window: how many tokens before and after one it
    attends to; needs window_size.
    """
    query, key, value = parts
    known, options = parameters(function), dict[str, Any]()
    if "scale" in known:
        options["scale"] = scaling
    else:  # its own is width ** -0.5
        query = query * (scaling * query.shape[-1] ** 0.5)
    if window is not None:
        options["window_size"] = (window, window)
    bounds, longest = spans.bounds, spans.longest
    result: torch.Tensor = function(query, key, value, bounds, bounds, longest, longest, **options)
    return result


def _attend_varlen(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: None,
    *,
    spans: Spans,
    scaling: float,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """(1, heads, tokens, width) each, to (1, tokens, heads, width)."""
    function = varlen_function()
    assert function is not None
    key, value = _as_many_heads(key, query), _as_many_heads(value, query)
    parts = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
    window = None if sliding_window is None else sliding_window - 1
    return varlen(function, parts, spans, scaling, window)[None], None


def _attend_runs(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: None,
    *,
    spans: Spans,
    scaling: float,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """(1, heads, tokens, width) each, to (1, tokens, heads, width)."""
    heads, width = query.shape[1], query.shape[3]
    key, value = _as_many_heads(key, query), _as_many_heads(value, query)
    result = torch.empty_like(query.transpose(1, 2))
    first = 0
    for length, number in spans.runs:
        tokens = slice(first, first + number * length)
        q, k, v = (
            part[0, :, tokens].view(heads, number, length, width).transpose(0, 1)
            for part in (query, key, value)
        )
        keys = length + -length % _KEYS_STEP.get(query.dtype, 1)
        k, v = _filled(k, keys), _filled(v, keys)
        mask = _seen(length, keys, sliding_window, query.device)
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=scaling)
        result[0, tokens].view(number, length, heads, width).copy_(attended.transpose(1, 2))
        first = tokens.stop
    result[0, first:] = 0  # what fills the row up
    return result, None


def _as_many_heads(part: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """(1, heads, tokens, width), of keys or values that several heads of the query share."""
    shared = query.shape[1] // part.shape[1]
    return part if shared == 1 else part.repeat_interleave(shared, dim=1)


def _filled(part: torch.Tensor, keys: int) -> torch.Tensor:
    """(sequences, heads, length, width), to as many keys: zeros stand for those that there are not."""
    number, heads, length, width = part.shape
    if length == keys:
        return part
    filled = part.new_empty(number, keys, heads, width).transpose(1, 2)
    filled[:, :, :length] = part
    filled[:, :, length:] = 0
    return filled


def _seen(length: int, keys: int, sliding_window: int | None, device: torch.device) -> torch.Tensor | None:
    """Whether a token attends to a key, (length or 1, keys); None where all do to all.

    Counts tokens nearby as transformers does: itself as one.
    """
    key = torch.arange(keys, device=device)
    if sliding_window is not None and length > sliding_window:
        near = (key[:length, None] - key).abs() < sliding_window
        return near & (key < length)
    return None if keys == length else (key < length)[None]


transformers.AttentionInterface.register(RUNS, _attend_runs)
transformers.AttentionInterface.register(VARLEN, _attend_varlen)
