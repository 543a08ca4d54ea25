"""bge-reranker-v2-gemma, and other causal language models that FlagEmbedding trained to rerank
(finetune.reranker.decoder_only.base): the logit of "Yes" after the prompt is the score.

Scores are those of FlagEmbedding 1.4.2 (inference/reranker/decoder_only/base.py, FlagLLMReranker).
"""

from typing import Any

import torch
import transformers

from pipeline.scoring.batch_loop import BatchScores
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.engine import Engine
from pipeline.scoring.headed_decoder import (
    LAYERWISE_ENGINES,
    PLAIN_BACKBONES,
    HeadedDecoder,
    check_plain_backbone,
    of_tokens,
    of_tokens_with_gradients,
)
from pipeline.scoring.prompting import PROMPT_OPTIONS, YES_OR_NO, PromptEncoder, first_token
from pipeline.scoring.saved_modules import Saved, check_sides, refuse_modules
from pipeline.scoring.weights import load_weights

HANDLES = (
    "GemmaForCausalLM trained to answer Yes (bge-reranker-v2-gemma); where family names it, any"
    f" {', '.join(PLAIN_BACKBONES)} that FlagEmbedding trained so"
)
OPTIONS = PROMPT_OPTIONS
ENGINES = LAYERWISE_ENGINES
EMBEDS = False
TRAINED: dict[str, str] = {}


def handles(checkpoint: Checkpoint) -> bool:
    """Others' files are those of any language model, and such a one would get scores that mean nothing."""
    of_another = {"Pooling", "LogitScore"} & {*Saved.of(checkpoint).kinds}
    return checkpoint.architecture == "GemmaForCausalLM" and not of_another


def check(checkpoint: Checkpoint, config: ScorerConfig) -> None:
    check_plain_backbone(checkpoint)
    refuse_modules(Saved.of(checkpoint), "flag_llm")
    check_sides(checkpoint, config, pads=False)


def load_encoder(checkpoint: Checkpoint, config: ScorerConfig) -> PromptEncoder:
    return PromptEncoder(checkpoint, config, YES_OR_NO)


def load_network(checkpoint: Checkpoint, config: ScorerConfig) -> Any:
    return load_weights(transformers.AutoModelForCausalLM, checkpoint, config, getattr(torch, config.dtype))


def load_model(checkpoint: Checkpoint, config: ScorerConfig, _engine: Engine) -> HeadedDecoder:
    return of_tokens(load_network(checkpoint, config), (first_token(checkpoint, "Yes"), None), config)


def batch_scores(network: Any, checkpoint: Checkpoint, config: ScorerConfig) -> BatchScores:
    return of_tokens_with_gradients(network, (first_token(checkpoint, "Yes"), None), config)
