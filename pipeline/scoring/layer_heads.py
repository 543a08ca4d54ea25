"""Heads of one number after several layers, which two of the BGE rerankers have."""

from typing import Any

import torch

from pipeline.errors import ConfigError
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig


def cutoff_layers(checkpoint: Checkpoint, config: ScorerConfig) -> list[int]:
    """The layers after which a score is asked for, in the order asked; by default the last.

    Raises ConfigError for one after which the checkpoint has no head.
    """
    known = layers_with_heads(checkpoint)
    wanted = list(config.cutoff_layers or known[-1:])
    wrong = [layer for layer in wanted if layer not in known]
    if wrong:
        raise ConfigError(
            f"cutoff_layers: {checkpoint.name} has no head after layer {wrong[0]}; it has heads after"
            f" {', '.join(map(str, known))}",
            field="cutoff_layers",
        )
    return wanted


def layers_with_heads(checkpoint: Checkpoint) -> range:
    published = checkpoint.config
    first, last = (published.required_integer(name) for name in ("start_layer", "num_hidden_layers"))
    if first > last:
        raise published.wrong("start_layer", f"is {first}, of {last} layers")
    return range(first, last + 1, published.integer("layer_sep", least=1) or 1)


def backbone_config(config_class: Any, checkpoint: Checkpoint, same: str, layers: int, **more: Any) -> Any:
    """The backbone's config in transformers: what config.json says of the fields `same`, and its rotary base.

    Raises ModelError where transformers does not take it.
    """
    published = checkpoint.config
    for name in ("rope_scaling", "rope_parameters"):
        if published.fields.get(name) is not None:
            raise published.wrong(name, "is not run here, rope_theta is")
    theta = published.required_number("rope_theta") if "rope_theta" in published.fields else 10_000.0
    fields = {name: published.fields[name] for name in same.split() if name in published.fields}
    rope = {"rope_type": "default", "rope_theta": theta}
    try:
        return config_class(**fields, num_hidden_layers=layers, rope_parameters=rope, **more)
    except Exception as error:  # of whatever class its checks are
        raise published.unfit(error) from error


def with_layer_heads(pretrained_class: Any, backbone_class: Any, checkpoint: Checkpoint) -> Any:
    """A class to load the checkpoint into, its parts named as in the file and as adapters name them."""
    width, count = checkpoint.config.required_integer("hidden_size"), len(layers_with_heads(checkpoint))

    # transformers' classes come in as values, which a type checker can't follow.
    class WithLayerHeads(pretrained_class):  # type: ignore[misc]
        _keep_in_fp32_modules_strict = ("lm_head",)

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.model = backbone_class(config)
            heads = [
                torch.nn.ModuleDict({"linear_head": torch.nn.Linear(width, 1, bias=False)})
                for _ in range(count)
            ]
            self.lm_head = torch.nn.ModuleList(heads)
            self.post_init()

    return WithLayerHeads


def head_rows(model: Any, numbers: list[int]) -> torch.Tensor:
    """(numbers, width) float32, with gradients: the weights of the heads with these numbers, in order."""
    return torch.cat([model.lm_head[number]["linear_head"].weight.float() for number in numbers])
