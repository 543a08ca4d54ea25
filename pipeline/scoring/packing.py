"""Batches without padding: sequences lie end to end in one row of tokens, from embeddings to last layer.

Everything but attention works token by token and so needs no change; attention is packed_attention's. After
the last layer the tokens are put back in their rows, so that a head or a pooling finds them where it looks.
"""

from typing import Any, NamedTuple

import torch

from pipeline.scoring.packed_attention import RUNS, Spans, implementation
from pipeline.scoring.prepacked import prepacks

_STEP = 32
"""Where oneDNN multiplies, tokens of a row are filled up to a multiple of this. It keeps what it makes for
each number of rows that a product has had, half a megabyte and more: with any number that came to gigabytes.
AMX multiplies 32 rows at a time."""


class _Layout(NamedTuple):
    layers: str
    """The list of the backbone's layers, by its place in it."""
    positions_skip_padding: bool = False
    """As in RoBERTa, positions count the tokens that are not the padding token, from its id plus one."""


# By config.json's model_type, those whose modeling code in transformers 5.23 was read. DeBERTa-v2 keeps its
# padding: its attention is no AttentionInterface's but adds terms of its own for each pair of tokens.
_LAYOUTS = {
    "bert": _Layout("encoder.layer"),
    "camembert": _Layout("encoder.layer", positions_skip_padding=True),
    "electra": _Layout("encoder.layer"),
    "gte": _Layout("layers"),
    "llama": _Layout("layers"),
    "modernbert": _Layout("layers"),
    "roberta": _Layout("encoder.layer", positions_skip_padding=True),
    "xlm-roberta": _Layout("encoder.layer", positions_skip_padding=True),
}

_CAUSAL = {"llama"}
"""Those in which a token attends to what stands before it alone, unless config.json says that it does not."""


def packed(network: Any, output: str, device: torch.device, dtype: torch.dtype) -> "PackedNetwork | None":
    """The network, changed in place, as one that drops padding; None where it better keeps it.

    It must be cast and moved already. output: of engine.Output.
    """
    config, layout = network.config, _LAYOUTS.get(network.config.model_type)
    if layout is None or getattr(config, "is_decoder", False) or not config.num_hidden_layers:
        return None
    if config.model_type in _CAUSAL and getattr(config, "is_causal", True):
        return None
    if layout.positions_skip_padding and config.pad_token_id is None:
        return None
    own_width = getattr(config, "head_dim", None)
    head_width = own_width or config.hidden_size // config.num_attention_heads
    windows = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    attention = implementation(device, dtype, head_width, windows=windows)
    return None if attention is None else PackedNetwork(network, layout, output, attention, dtype)


class PackedNetwork:
    """An encoder that takes batches without padding."""

    def __init__(self, model: Any, layout: _Layout, output: str, attention: str, dtype: torch.dtype) -> None:
        self._model, self._output, self._in_runs = model, output, attention == RUNS
        by_onednn = dtype == torch.bfloat16 or prepacks(torch.device("cpu"), dtype)
        self._step = _STEP if self._in_runs and by_onednn else 1
        self._position_pad_id = model.config.pad_token_id if layout.positions_skip_padding else None
        # The heads of all layouts read first tokens, but for a ModernBERT's that was told to take the mean.
        self._reads_all = output != "logits" or getattr(model.config, "classifier_pooling", "cls") != "cls"
        self._rows = _Rows(reads_all=self._reads_all)
        model.set_attn_implementation(attention)
        model.base_model.get_submodule(layout.layers)[-1].register_forward_hook(self._rows.put_back)

    def lay(self, ids: torch.Tensor, mask: torch.Tensor, **inputs: torch.Tensor) -> dict[str, Any]:
        """What `run` takes, of (batch, length) ids, mask and more, padded, longest first, on the CPU.

        A row holds the real tokens, and behind them as many zeros as `_STEP` asks for.
        """
        real = mask.bool()
        real[:, 0] = True  # a sequence without tokens is the padding token alone
        lengths = real.sum(dim=1)
        bounds = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        runs = torch.unique_consecutive(lengths, return_counts=True) if self._in_runs else ()
        filling = -int(bounds[-1]) % self._step

        def row(values: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.pad(values[real], (0, filling))[None]

        return {
            "ids": row(ids),
            "mask": mask,
            "positions": row(self._positions(ids)),
            "places": real.flatten().nonzero()[:, 0] if self._reads_all else bounds[:-1],
            "bounds": bounds.int(),
            "longest": int(lengths[0]),
            "runs": list(zip(*(run.tolist() for run in runs), strict=True)),
            **{name: row(values) for name, values in inputs.items()},
        }

    def run(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        places: torch.Tensor,
        bounds: torch.Tensor,
        longest: int,
        runs: list[tuple[int, int]],
        **inputs: torch.Tensor,
    ) -> torch.Tensor:
        """(batch, labels) logits, or (batch, length, width) hidden states, zero where padding was."""
        self._rows.back = places, (mask.shape[0], mask.shape[1])
        outputs = self._model(
            input_ids=ids,
            position_ids=positions,
            # No attention reads it: these implementations get no mask. ModernBERT's mean does.
            attention_mask=mask if self._reads_all else None,
            spans=Spans(runs, bounds, longest),
            return_dict=True,
            **inputs,
        )
        result: torch.Tensor = outputs[self._output]
        return result

    def _positions(self, ids: torch.Tensor) -> torch.Tensor:
        if self._position_pad_id is None:
            return torch.arange(ids.shape[1]).expand(ids.shape)
        counts = ids.ne(self._position_pad_id).long()
        positions: torch.Tensor = counts.cumsum(dim=1) * counts + self._position_pad_id
        return positions


class _Rows:
    """Puts tokens back in their rows. It holds no network: one that is dropped shall be gone at once."""

    def __init__(self, *, reads_all: bool) -> None:
        self._reads_all = reads_all
        self.back: tuple[torch.Tensor, tuple[int, int]] | None = None
        """Where the tokens of the batch under way go, and the (batch, length) of its rows."""

    def put_back(self, _layer: torch.nn.Module, _inputs: Any, hidden: torch.Tensor) -> torch.Tensor:
        """(1, tokens, width) to (batch, length, width); to (batch, 1, width) where first tokens are all."""
        assert self.back is not None
        places, (batch, length) = self.back
        if not self._reads_all:
            return hidden[0, places][:, None]
        padded = hidden.new_zeros(batch * length, hidden.shape[2])
        padded[places] = hidden[0, : len(places)]
        return padded.view(batch, length, -1)
