"""A causal backbone, layer by layer: only the last position is read, after the layers that are asked for."""

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch


class Prefix:
    """The keys and values that every layer computed for the tokens with which sequences begin.

    It stands where transformers' layers expect their cache: a layer's first call fills it, later calls read.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, **_: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, heads, length, width) each; comes back with the prefix before it.

        transformers 5.24 gives the layer's other arguments, too.
        """
        if layer not in self._layers:
            self._layers[layer] = keys, values
            return keys, values
        first_keys, first_values = (part.expand(len(keys), -1, -1, -1) for part in self._layers[layer])
        return torch.cat([first_keys, keys], dim=2), torch.cat([first_values, values], dim=2)


class Decoder:
    """Runs the layers of a transformers decoder (Llama, Gemma, Gemma 2, Qwen 3) in a loop of its own.

    Sequences are padded on the right, so that causal attention alone hides the padding. The backbone holds no
    layers above the last cutoff. Compression, where `compress_layers` are given, replaces each group of
    `compress_ratio` passage tokens by their mean before such a layer and numbers the positions anew.
    """

    def __init__(
        self,
        backbone: Any,
        cutoff_layers: Sequence[int],
        compress_layers: Sequence[int] = (),
        compress_ratio: int = 1,
    ) -> None:
        self._backbone = backbone
        self._cutoff_layers = list(cutoff_layers)
        # As in the reference, there is no compression before the first layer.
        self._compress_layers = set(compress_layers) - {0} if compress_ratio > 1 else set()
        self._compress_ratio = compress_ratio
        self._cache_name = _cache_name(backbone.layers)

    def read_prefix(self, ids: torch.Tensor) -> Prefix:
        """Read (1, length) ids that sequences begin with, before their passage."""
        prefix = Prefix(ids.shape[1])
        hidden = self._backbone.embed_tokens(ids)
        layout = self._layout(hidden, None)
        for layer in self._backbone.layers:
            hidden = layer(hidden, **{self._cache_name: prefix}, **layout)
        return prefix

    def forward(
        self,
        ids: torch.Tensor,
        lengths: torch.Tensor,
        query_lengths: torch.Tensor,
        prompt_lengths: torch.Tensor,
        prefix: Prefix | None = None,
    ) -> torch.Tensor:
        """(batch, length) ids to (batch, cutoffs, width): the last token after each cutoff, normed, float32.

        lengths: (batch,), real tokens; query_lengths, prompt_lengths: (batch,), those before and after the
        passage. With a prefix, ids are what follows it, and lengths and query_lengths leave it out.
        """
        hidden = self._backbone.embed_tokens(ids)
        layout = self._layout(hidden, prefix)
        last: dict[int, torch.Tensor] = {}
        for number, layer in enumerate(self._backbone.layers):
            if number in self._cutoff_layers:
                last[number] = self._last(hidden, lengths)
            if number in self._compress_layers:
                hidden, lengths = _compress(
                    hidden, lengths, query_lengths, prompt_lengths, self._compress_ratio
                )
                layout = self._layout(hidden, prefix)
            hidden = layer(hidden, **{self._cache_name: prefix}, **layout)
        last[len(self._backbone.layers)] = self._last(hidden, lengths)
        return torch.stack([last[cutoff] for cutoff in self._cutoff_layers], dim=1)

    def _last(self, hidden: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(len(hidden), device=hidden.device)
        normed: torch.Tensor = self._backbone.norm(hidden[rows, lengths - 1])
        return normed.float()

    def _layout(self, hidden: torch.Tensor, prefix: Prefix | None) -> dict[str, Any]:
        before, length = (0 if prefix is None else prefix.length), hidden.shape[1]
        positions = torch.arange(before, before + length, device=hidden.device)
        # Without a mask torch's attention is causal by itself, but only where queries and keys are as many.
        mask = positions[:, None] >= torch.arange(before + length, device=hidden.device) if before else None
        return {
            "attention_mask": None if mask is None else mask[None, None],
            "position_ids": positions[None],
            "position_embeddings": self._backbone.rotary_emb(hidden, positions[None]),
        }


def _cache_name(layers: Sequence[torch.nn.Module]) -> str:
    """What they call their cache: `cache` from transformers 5.24 on. A name that they lack they ignore."""
    known = signature(type(layers[0]).forward).parameters if len(layers) else {}
    return "cache" if "cache" in known else "past_key_values"


def _compress(
    hidden: torch.Tensor, lengths: torch.Tensor, query: torch.Tensor, prompt: torch.Tensor, ratio: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of each group of `ratio` passage tokens; query and prompt tokens stay. Gives the new lengths too.

    Reads instead of scatters (FlagEmbedding's token_compress does the latter): the sums then have one order.
    """
    passage = lengths - query - prompt
    groups = (passage + ratio - 1) // ratio
    shorter = query + groups + prompt
    place = torch.arange(int(shorter.max()), device=hidden.device)[None]
    query, passage, groups = query[:, None], passage[:, None], groups[:, None]
    in_passage = (place >= query) & (place < query + groups)
    source = torch.where(place < query, place, place - groups + passage)
    total = torch.zeros(
        len(hidden), place.shape[1], hidden.shape[2], dtype=torch.float32, device=hidden.device
    )
    count = torch.zeros(len(hidden), place.shape[1], 1, dtype=torch.float32, device=hidden.device)
    for offset in range(ratio):
        member = query + (place - query) * ratio + offset
        taken = torch.where(in_passage, member, source).clamp(0, hidden.shape[1] - 1)
        counts = torch.where(
            in_passage, member < query + passage, torch.tensor(offset == 0, device=place.device)
        )
        weight = counts[:, :, None].float()
        total += hidden.gather(1, taken[:, :, None].expand(-1, -1, hidden.shape[2])).float() * weight
        count += weight
    return (total / count).to(hidden.dtype), shorter
