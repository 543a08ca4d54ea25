"""bge-reranker-v2-minicpm-layerwise: a MiniCPM backbone with a head of one number after every upper layer.

It needs no remote code: MiniCPM is a Llama whose factors fold into the weights (scale_emb into the
embedding, scale_depth / sqrt(layers) into what each block adds to the residual).
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import transformers

from pipeline.scoring.batch_loop import BatchScores
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.engine import Engine
from pipeline.scoring.headed_decoder import LAYERWISE_ENGINES, HeadedDecoder, with_gradients
from pipeline.scoring.layer_heads import (
    backbone_config,
    cutoff_layers,
    head_rows,
    layers_with_heads,
    with_layer_heads,
)
from pipeline.scoring.prompting import PROMPT_OPTIONS, YES_OR_NO, PromptEncoder
from pipeline.scoring.saved_modules import Saved, check_sides, refuse_modules
from pipeline.scoring.weights import load_weights

HANDLES = "LayerWiseMiniCPMForCausalLM (bge-reranker-v2-minicpm-layerwise)"
OPTIONS = PROMPT_OPTIONS | {"cutoff_layers"}
ENGINES = LAYERWISE_ENGINES
EMBEDS = False
TRAINED: dict[str, str] = {}

_SAME = (
    "vocab_size hidden_size intermediate_size num_attention_heads num_key_value_heads hidden_act"
    " max_position_embeddings rms_norm_eps attention_bias"
)
_KNOWN: dict[str, tuple[Any, ...]] = {
    "head_type": ("simple",),
    "head_multi": (True,),
    "num_experts": (None, 0),
}
"""What a config.json of this architecture can say, and what of it is run here; first what silence means."""


def handles(checkpoint: Checkpoint) -> bool:
    return checkpoint.architecture == "LayerWiseMiniCPMForCausalLM" and not Saved.of(checkpoint).pools


def check(checkpoint: Checkpoint, config: ScorerConfig) -> None:
    cutoff_layers(checkpoint, config)
    published = checkpoint.config
    for name, known in _KNOWN.items():
        if published.fields.get(name, known[0]) not in known:
            raise published.wrong(name, f"{published.fields[name]!r} is not run here, {known[0]!r} is")
    for name in ("scale_depth", "scale_emb"):
        published.required_number(name)
    backbone_config(transformers.LlamaConfig, checkpoint, _SAME, 1)
    refuse_modules(Saved.of(checkpoint), "minicpm_layerwise")
    check_sides(checkpoint, config, pads=False)


def load_encoder(checkpoint: Checkpoint, config: ScorerConfig) -> PromptEncoder:
    return PromptEncoder(checkpoint, config, YES_OR_NO)


def load_network(checkpoint: Checkpoint, config: ScorerConfig) -> Any:
    """Its weights are as published; the factors are applied where these end up.

    That is around the modules that hold them: LoRA puts its own beside a layer, and what that adds is scaled
    too, as it is in a checkpoint that has it merged in.
    """
    model = _load(checkpoint, config)
    backbone, (embedding, depth) = model.model, _factors(checkpoint)
    backbone.layers[0].register_forward_pre_hook(partial(_scale_input, embedding))
    for layer in backbone.layers:
        layer.self_attn.register_forward_hook(partial(_scale_attention, depth))
        layer.mlp.register_forward_hook(partial(_scale, depth))
    return model


def load_model(checkpoint: Checkpoint, config: ScorerConfig, _engine: Engine) -> HeadedDecoder:
    cutoffs, with_heads = cutoff_layers(checkpoint, config), layers_with_heads(checkpoint)
    model = _load(checkpoint, config)
    with torch.no_grad():
        for module, factor in _scaled(model.model, checkpoint):
            module.weight.mul_(factor)
            if getattr(module, "bias", None) is not None:
                module.bias.mul_(factor)
    heads = head_rows(model, [with_heads.index(cutoff) for cutoff in cutoffs]).detach()
    return HeadedDecoder(model.model, heads, config, cutoffs)


def batch_scores(network: Any, checkpoint: Checkpoint, config: ScorerConfig) -> BatchScores:
    layers = list(layers_with_heads(checkpoint))
    return with_gradients(network.model, lambda: head_rows(network, [*range(len(layers))]), config, layers)


def _load(checkpoint: Checkpoint, config: ScorerConfig) -> Any:
    """The weights as published, in a Llama, which knows no factors."""
    layers = max(cutoff_layers(checkpoint, config))
    llama = backbone_config(transformers.LlamaConfig, checkpoint, _SAME, layers)
    headed = with_layer_heads(transformers.LlamaPreTrainedModel, transformers.LlamaModel, checkpoint)
    return load_weights(headed, checkpoint, config, getattr(torch, config.dtype), model_config=llama)


def _scaled(backbone: Any, checkpoint: Checkpoint) -> Iterator[tuple[Any, float]]:
    """The modules whose output has a factor, and it."""
    embedding, depth = _factors(checkpoint)
    yield backbone.embed_tokens, embedding
    for layer in backbone.layers:
        yield layer.self_attn.o_proj, depth
        yield layer.mlp.down_proj, depth


def _factors(checkpoint: Checkpoint) -> tuple[float, float]:
    """Of the embeddings, and of what a block adds to the residual."""
    published = checkpoint.config
    depth = published.required_number("scale_depth") / math.sqrt(
        published.required_integer("num_hidden_layers")
    )
    return published.required_number("scale_emb"), depth


def _scale_input(factor: float, _layer: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    (hidden,) = inputs
    return (hidden * factor,)


def _scale_attention(
    factor: float, _module: torch.nn.Module, _inputs: Any, output: tuple[torch.Tensor, Any]
) -> tuple[torch.Tensor, Any]:
    added, weights = output
    return added * factor, weights


def _scale(factor: float, _module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return output * factor
