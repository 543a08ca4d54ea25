"""bge-reranker-v2-gemma: a causal language model whose logit of "Yes" after the prompt is the score."""

from typing import Any

import torch
import transformers

from pipeline.scoring.batch_loop import BatchScores
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.engine import Engine
from pipeline.scoring.headed_decoder import LAYERWISE_ENGINES, HeadedDecoder, check_causal, with_gradients
from pipeline.scoring.prompting import PROMPT_OPTIONS, YES_OR_NO, PromptEncoder, first_token
from pipeline.scoring.saved_modules import Saved, check_sides, refuse_modules
from pipeline.scoring.weights import load_weights

HANDLES = "GemmaForCausalLM trained to answer Yes (bge-reranker-v2-gemma)"
OPTIONS = PROMPT_OPTIONS
ENGINES = LAYERWISE_ENGINES
EMBEDS = False
TRAINED: dict[str, str] = {}


def handles(checkpoint: Checkpoint) -> bool:
    return checkpoint.architecture == "GemmaForCausalLM" and not Saved.of(checkpoint).pools


def check(checkpoint: Checkpoint, config: ScorerConfig) -> None:
    _ = checkpoint.architecture_config
    check_causal(checkpoint)
    refuse_modules(Saved.of(checkpoint), "gemma")
    check_sides(checkpoint, config, pads=False)


def load_encoder(checkpoint: Checkpoint, config: ScorerConfig) -> PromptEncoder:
    return PromptEncoder(checkpoint, config, YES_OR_NO)


def load_network(checkpoint: Checkpoint, config: ScorerConfig) -> Any:
    return load_weights(transformers.GemmaForCausalLM, checkpoint, config, getattr(torch, config.dtype))


def load_model(checkpoint: Checkpoint, config: ScorerConfig, _engine: Engine) -> HeadedDecoder:
    model = load_network(checkpoint, config)
    yes = first_token(checkpoint, "Yes")
    head = model.lm_head.weight[[yes]].detach().float()
    return HeadedDecoder(model.model, head, config, [model.config.num_hidden_layers])


def batch_scores(network: Any, checkpoint: Checkpoint, config: ScorerConfig) -> BatchScores:
    yes = first_token(checkpoint, "Yes")
    layers = [network.config.num_hidden_layers]
    return with_gradients(network.model, lambda: network.lm_head.weight[[yes]], config, layers)
