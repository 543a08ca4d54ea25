"""bge-reranker-v2-gemma: a causal language model whose logit of "Yes" after the prompt is the score."""

from typing import Any

import torch
import transformers

from pipeline.scoring.batch_loop import BatchScores
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.engine import Engine
from pipeline.scoring.headed_decoder import (
    LAYERWISE_ENGINES,
    HeadedDecoder,
    check_causal,
    of_tokens,
    of_tokens_with_gradients,
)
from pipeline.scoring.prompting import PROMPT_OPTIONS, YES_OR_NO, PromptEncoder, first_token
from pipeline.scoring.saved_modules import Saved, check_sides, refuse_modules
from pipeline.scoring.weights import load_weights

HANDLES = "GemmaForCausalLM trained to answer Yes (bge-reranker-v2-gemma)"
OPTIONS = PROMPT_OPTIONS
ENGINES = LAYERWISE_ENGINES
EMBEDS = False
TRAINED: dict[str, str] = {}


def handles(checkpoint: Checkpoint) -> bool:
    of_another = {"Pooling", "LogitScore"} & {*Saved.of(checkpoint).kinds}
    return checkpoint.architecture == "GemmaForCausalLM" and not of_another


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
    return of_tokens(load_network(checkpoint, config), (first_token(checkpoint, "Yes"), None), config)


def batch_scores(network: Any, checkpoint: Checkpoint, config: ScorerConfig) -> BatchScores:
    return of_tokens_with_gradients(network, (first_token(checkpoint, "Yes"), None), config)
