"""bge-reranker-v2-minicpm-layerwise: a MiniCPM backbone with a head of one number after every upper layer.

It needs no remote code: MiniCPM is a Llama whose factors fold into the weights (scale_emb into the
embedding, scale_depth / sqrt(layers) into what each block adds to the residual).
"""

import math
from typing import Any

import torch
from transformers import LlamaConfig, LlamaModel, LlamaPreTrainedModel

from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.headed_decoder import HeadedDecoder
from pipeline.scoring.layer_heads import cutoff_layers, head_rows, with_layer_heads
from pipeline.scoring.prompting import PROMPT_OPTIONS, YES_OR_NO, PromptEncoder
from pipeline.scoring.weights import load_weights

HANDLES = "LayerWiseMiniCPMForCausalLM (bge-reranker-v2-minicpm-layerwise)"
OPTIONS = PROMPT_OPTIONS | {"cutoff_layers"}

_SAME = (
    "vocab_size hidden_size intermediate_size num_attention_heads num_key_value_heads hidden_act"
    " max_position_embeddings rms_norm_eps attention_bias"
)


def handles(checkpoint: Checkpoint) -> bool:
    return checkpoint.architecture == "LayerWiseMiniCPMForCausalLM"


def check(checkpoint: Checkpoint, config: ScorerConfig) -> None:
    cutoff_layers(checkpoint, config)


def load_encoder(checkpoint: Checkpoint, config: ScorerConfig) -> PromptEncoder:
    return PromptEncoder(checkpoint, config, YES_OR_NO)


def load_model(checkpoint: Checkpoint, config: ScorerConfig) -> HeadedDecoder:
    published, cutoffs = checkpoint.config, cutoff_layers(checkpoint, config)
    llama = _llama_config(published, layers=max(cutoffs))
    headed = with_layer_heads(LlamaPreTrainedModel, LlamaModel, checkpoint)
    model = load_weights(headed, checkpoint, config, getattr(torch, config.dtype), model_config=llama)
    _fold_factors(model.model, published)
    heads = head_rows(model, [cutoff - published["start_layer"] for cutoff in cutoffs])
    return HeadedDecoder(model.model, heads, config, cutoffs)


def _llama_config(published: dict[str, Any], layers: int) -> LlamaConfig:
    rope = {"rope_type": "default", "rope_theta": published.get("rope_theta", 10_000.0)}
    fields = {name: published[name] for name in _SAME.split() if name in published}
    return LlamaConfig(**fields, num_hidden_layers=layers, rope_parameters=rope)


def _fold_factors(backbone: Any, published: dict[str, Any]) -> None:
    depth = published["scale_depth"] / math.sqrt(published["num_hidden_layers"])
    with torch.no_grad():
        backbone.embed_tokens.weight.mul_(published["scale_emb"])
        for layer in backbone.layers:
            layer.self_attn.o_proj.weight.mul_(depth)
            layer.mlp.down_proj.weight.mul_(depth)
