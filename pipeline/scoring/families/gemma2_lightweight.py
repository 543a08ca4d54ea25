"""bge-reranker-v2.5-gemma2-lightweight: Gemma 2 with heads after the upper layers and compressed passages.

As in FlagEmbedding 1.4.2 (decoder_only/models/gemma_model.py), with which the published scores were made:
attention is plain causal, without Gemma 2's sliding window and, since torch's attention has none, without the
soft cap inside; the score goes through the tanh soft cap; heads are taken by position among the cutoffs asked
for (the lowest cutoff uses head 0, whatever its number).
"""

from functools import partial
from typing import Any

import torch
import transformers

from pipeline.errors import ConfigError
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
from pipeline.scoring.prompting import PROMPT_OPTIONS, PromptEncoder
from pipeline.scoring.saved_modules import Saved, check_sides, refuse_modules
from pipeline.scoring.weights import load_weights

HANDLES = "CostWiseGemmaForCausalLM (bge-reranker-v2.5-gemma2-lightweight)"
OPTIONS = PROMPT_OPTIONS | {"cutoff_layers", "compress_layers", "compress_ratio", "head_index"}
ENGINES = LAYERWISE_ENGINES
EMBEDS = False
TRAINED = {"head_index": "layer"}
PROMPT = "Predict whether passage B contains an answer to query A."

_SAME = (
    "vocab_size hidden_size intermediate_size num_attention_heads num_key_value_heads head_dim"
    " hidden_activation max_position_embeddings rms_norm_eps attention_bias query_pre_attn_scalar"
)


def handles(checkpoint: Checkpoint) -> bool:
    return checkpoint.architecture == "CostWiseGemmaForCausalLM" and not Saved.of(checkpoint).pools


def check(checkpoint: Checkpoint, config: ScorerConfig) -> None:
    cutoff_layers(checkpoint, config)
    published = checkpoint.config
    last = published.required_integer("num_hidden_layers") - 1
    wrong = [layer for layer in config.compress_layers if not 0 <= layer <= last]
    if config.compress_ratio > 1 and wrong:
        raise ConfigError(
            f"compress_layers: no layer {wrong[0]}; there are 0 to {last}", field="compress_layers"
        )
    if published.required_number("final_logit_softcapping") <= 0:
        raise published.wrong("final_logit_softcapping", "needs a number above 0")
    if published.fields.get("head_index") not in (None, "position", "layer"):
        raise published.wrong("head_index", "needs position or layer")
    if published.flag("layer_wise") is False:
        raise published.wrong("layer_wise", "false is not run here, true is")
    _gemma2_config(checkpoint, layers=1)
    refuse_modules(Saved.of(checkpoint), "gemma2_lightweight")
    check_sides(checkpoint, config, pads=False)


def load_encoder(checkpoint: Checkpoint, config: ScorerConfig) -> PromptEncoder:
    return PromptEncoder(checkpoint, config, PROMPT)


def load_network(checkpoint: Checkpoint, config: ScorerConfig) -> Any:
    gemma2 = _gemma2_config(checkpoint, layers=max(cutoff_layers(checkpoint, config)))
    headed = with_layer_heads(transformers.Gemma2PreTrainedModel, transformers.Gemma2Model, checkpoint)
    model = load_weights(headed, checkpoint, config, getattr(torch, config.dtype), model_config=gemma2)
    # transformers holds Gemma 2 to its eager attention for the sake of the soft cap that is not used here.
    model.model.config._attn_implementation = "sdpa"
    return model


def load_model(checkpoint: Checkpoint, config: ScorerConfig, _engine: Engine) -> HeadedDecoder:
    cutoffs, model = cutoff_layers(checkpoint, config), load_network(checkpoint, config)
    heads = head_rows(model, _head_numbers(cutoffs, checkpoint, config)).detach()
    cap = checkpoint.config.required_number("final_logit_softcapping")
    return HeadedDecoder(model.model, heads, config, cutoffs, config.compress_layers, score_cap=cap)


def batch_scores(network: Any, checkpoint: Checkpoint, config: ScorerConfig) -> BatchScores:
    """Head i is that of the i-th layer that has one: as `head_index: layer` takes them."""
    layers = list(layers_with_heads(checkpoint))
    cap = checkpoint.config.required_number("final_logit_softcapping")
    heads = partial(head_rows, network, [*range(len(layers))])
    return with_gradients(network.model, heads, config, layers, config.compress_layers, score_cap=cap)


def _gemma2_config(checkpoint: Checkpoint, layers: int) -> Any:
    kinds = ["full_attention"] * layers
    return backbone_config(
        transformers.Gemma2Config, checkpoint, _SAME, layers, layer_types=kinds, attn_logit_softcapping=None
    )


def _head_numbers(cutoffs: list[int], checkpoint: Checkpoint, config: ScorerConfig) -> list[int]:
    # The reference visits the cutoffs in ascending order, each once.
    index = config.head_index or checkpoint.config.fields.get("head_index")
    numbered = layers_with_heads(checkpoint) if index == "layer" else sorted(set(cutoffs))
    return [numbered.index(cutoff) for cutoff in cutoffs]
