"""Batches without padding, on a CPU: sequences lie end to end in one row, and each attends to itself alone.

Everything but attention works token by token and so needs no change. Attention goes through transformers'
AttentionInterface, over runs of sequences of one length, and the head is handed the sequences' first tokens.
"""

from typing import Any, NamedTuple

import torch
import transformers

_ATTENTION = "rayrank_packed"


class _Layout(NamedTuple):
    head: str
    """The module that reads the first token of each sequence, `hidden[:, 0]`."""
    positions_skip_padding: bool = False
    """As in RoBERTa, positions count the tokens that are not the padding token, from its id plus one."""


_LAYOUTS = {
    "bert": _Layout("bert.pooler"),
    "camembert": _Layout("classifier", positions_skip_padding=True),
    "electra": _Layout("classifier"),
    "roberta": _Layout("classifier", positions_skip_padding=True),
    "xlm-roberta": _Layout("classifier", positions_skip_padding=True),
}
"""By config.json's model_type, those whose modeling code in transformers 5.23 was read."""


def can_pack(model: Any, device: torch.device) -> bool:
    """On a GPU, a call for each run of lengths would cost more than padding does."""
    layout = _LAYOUTS.get(model.config.model_type)
    if device.type != "cpu" or layout is None or model.config.is_decoder:
        return False
    return model.config.pad_token_id is not None or not layout.positions_skip_padding


class PackedClassifier:
    """A sequence classifier that takes batches without padding."""

    def __init__(self, model: Any) -> None:
        layout = _LAYOUTS[model.config.model_type]
        self._model = model
        self._position_pad_id = model.config.pad_token_id if layout.positions_skip_padding else None
        self._firsts = torch.zeros(0, dtype=torch.int64)
        transformers.AttentionInterface.register(_ATTENTION, _attend)
        model.set_attn_implementation(_ATTENTION)
        model.get_submodule(layout.head).register_forward_pre_hook(self._take_firsts)

    def logits(self, ids: torch.Tensor, mask: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        """(batch, length) ids, mask and more of them, padded and longest first, to (batch, labels)."""
        real = mask.bool()
        lengths = mask.sum(dim=1)
        self._firsts = lengths.cumsum(0) - lengths
        runs = [run.tolist() for run in torch.unique_consecutive(lengths, return_counts=True)]
        result: torch.Tensor = self._model(
            input_ids=ids[real][None],
            position_ids=self._positions(ids)[real][None],
            runs=list(zip(*runs, strict=True)),
            return_dict=True,
            **{name: values[real][None] for name, values in more.items()},
        ).logits
        return result

    def _positions(self, ids: torch.Tensor) -> torch.Tensor:
        if self._position_pad_id is None:
            return torch.arange(ids.shape[1]).expand(ids.shape)
        counts = ids.ne(self._position_pad_id).long()
        positions: torch.Tensor = counts.cumsum(dim=1) * counts + self._position_pad_id
        return positions

    def _take_firsts(self, _module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, *others = inputs
        return hidden[0, self._firsts][:, None], *others


def _attend(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: None,
    *,
    runs: list[tuple[int, int]],
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """(1, heads, tokens, width) each, to (1, tokens, heads, width). runs: length and number of sequences."""
    heads, width = query.shape[1], query.shape[3]
    result = torch.empty_like(query.transpose(1, 2))
    first = 0
    for length, number in runs:
        tokens = slice(first, first + number * length)
        q, k, v = (
            part[0, :, tokens].view(heads, number, length, width).transpose(0, 1)
            for part in (query, key, value)
        )
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scaling)
        result[0, tokens].view(number, length, heads, width).copy_(attended.transpose(1, 2))
        first = tokens.stop
    return result, None
