"""The ceiling: how long do the matrix products of a forward pass take, and nothing else?

They are those over the real tokens, in the scorer's dtype, in the batches that it makes of them. Per layer
and batch of n tokens, of width 384: four (n,384)x(384,384), one (n,384)x(384,1536), one (n,1536)x(1536,384),
each layer with weights of its own; and for each head and sequence of length l (l,32)x(32,l) and (l,l)x(l,32),
sequences of equal length in one call. Those of the layers are made by torch.mm, or by oneDNN with weights in
its own layout: by what is faster here. Not counted: padding, tokenization, embeddings, biases, softmax, GELU,
layer norms, the head, and every allocation but oneDNN's.
"""

from collections.abc import Callable
from functools import partial
from time import perf_counter

import numpy as np
import numpy.typing as npt
import torch
from transformers import XLMRobertaConfig

from pipeline.scoring.batch_loop import BatchLoop
from pipeline.scoring.batching import Group, IndexArray, Sequences

Product = Callable[[torch.Tensor, torch.Tensor], object]
"""Of (tokens, in) states, into (tokens, out) or a tensor of its own."""
ROUNDS, TRIED_LAYERS = 3, 4


def by_mm(weights: torch.Tensor) -> Product:
    return lambda states, out: torch.mm(states, weights, out=out)


def by_onednn(weights: torch.Tensor) -> Product:
    multiply = torch.ops.mkldnn._linear_pointwise
    laid_out = torch.ops.mkldnn._reorder_linear_weight(weights.T.contiguous(), 1024)
    return lambda states, _out: multiply(states, laid_out, None, "none", [], "")


class Products:
    """On tensors made beforehand."""

    def __init__(self, sequences: Sequences, loop: BatchLoop, model: XLMRobertaConfig, dtype: str) -> None:
        lengths, kind = sequences.lengths, getattr(torch, dtype)
        width, inner, self._heads = model.hidden_size, model.intermediate_size, model.num_attention_heads
        shapes = [(width, width)] * 4 + [(width, inner), (inner, width)]
        batches: list[npt.NDArray[np.int64]] = []

        def note(batch: IndexArray, **_: torch.Tensor) -> torch.Tensor:
            batches.append(lengths[batch])
            return torch.zeros(len(batch))

        loop.run(sequences, [Group(np.arange(len(lengths)))], 0, note)
        most = max(int(batch.sum()) for batch in batches)
        self._states, self._out, self._inner = (
            torch.randn(most, size, dtype=kind) for size in (width, width, inner)
        )
        largest = max(int((batch**2).sum()) for batch in batches)
        self._between = torch.empty(largest * self._heads, dtype=kind)
        self._batches = [(int(batch.sum()), self._attention(batch)) for batch in batches]
        # Weights of its own for each layer: read from memory as a model's are, not kept in the cache.
        layers = [
            [torch.randn(shape, dtype=kind) for shape in shapes] for _ in range(model.num_hidden_layers)
        ]
        made = [[[way(weights) for weights in layer] for layer in layers] for way in (by_mm, by_onednn)]
        self._layers = min(made, key=partial(self._seconds, most))
        linear = int(lengths.sum()) * (4 * width**2 + 2 * width * inner)
        attention = 2 * width * int((lengths**2).sum())
        self.flop = 2 * model.num_hidden_layers * (linear + attention)

    def _attention(self, lengths: npt.NDArray[np.int64]) -> list[tuple[torch.Tensor, ...]]:
        """For each length: the queries (values too), the keys, where the two products go. All are views."""
        views: list[tuple[torch.Tensor, ...]] = []
        for length, count in zip(*np.unique(lengths, return_counts=True), strict=True):
            rows, tokens = int(count) * self._heads, int(count * length)
            states, out = (flat[:tokens].view(rows, int(length), -1) for flat in (self._states, self._out))
            between = self._between[: rows * int(length) ** 2].view(rows, int(length), int(length))
            views.append((states, states.transpose(1, 2), between, out))
        return views

    @torch.inference_mode()
    def _seconds(self, tokens: int, layers: list[list[Product]]) -> float:
        """The best of some rounds of a few layers, after a first one."""
        seconds = []
        for _ in range(1 + ROUNDS):
            begun = perf_counter()
            for layer in layers[:TRIED_LAYERS]:
                self._multiply(layer, tokens, [])
            seconds.append(perf_counter() - begun)
        return min(seconds[1:])

    @torch.inference_mode()
    def __call__(self, _items: object) -> npt.ArrayLike:
        for tokens, attention in self._batches:
            for layer in self._layers:
                self._multiply(layer, tokens, attention)
        return ()

    def _multiply(self, layer: list[Product], tokens: int, attention: list[tuple[torch.Tensor, ...]]) -> None:
        states, out, inner = self._states[:tokens], self._out[:tokens], self._inner[:tokens]
        *square, up, down = layer
        for product in square:
            product(states, out)
        for queries, keys, between, mixed in attention:
            torch.bmm(queries, keys, out=between)
            torch.bmm(between, queries, out=mixed)
        up(states, inner)
        down(inner, out)
