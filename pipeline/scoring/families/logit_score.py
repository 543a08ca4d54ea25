"""Causal language models that answer in a chat, as sentence-transformers saves them: a chat template puts the
pair, and a LogitScore reads the logit of one token, less that of another where it names two.

So are zerank-2, ctxl-rerank-v2 and others published. A score is that of sentence_transformers 6.2
(CrossEncoder with the activation Identity): the whole text is tokenized at once, and one that is too long
loses the passage's end, since what stands behind it has to stay (_restore_chat_template_suffix in
base/modules/transformer.py). Where the passage stands before the query, that library cuts the query off; here
the passage is cut there, too.
"""

from typing import Any

import torch
import transformers

from pipeline.errors import ModelError
from pipeline.scoring.batch_loop import BatchScores
from pipeline.scoring.chat_template import asks_as_qwen3, check_chats, pair_frame
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.engine import Engine
from pipeline.scoring.frame_encoder import FrameEncoder
from pipeline.scoring.headed_decoder import (
    LAYERWISE_ENGINES,
    HeadedDecoder,
    Tokens,
    check_plain_backbone,
    of_tokens,
    of_tokens_with_gradients,
)
from pipeline.scoring.saved_modules import Saved, check_sides, logit_tokens
from pipeline.scoring.truncation import refuse_longest_first
from pipeline.scoring.weights import load_weights

HANDLES = "causal models with a chat template and a LogitScore (zerank-2, ctxl-rerank-v2)"
OPTIONS = frozenset({"truncation", "normalize", "query_instruction_for_rerank"})
ENGINES = LAYERWISE_ENGINES
EMBEDS = False
TRAINED: dict[str, str] = {}


def handles(checkpoint: Checkpoint) -> bool:
    return "LogitScore" in Saved.of(checkpoint).kinds and not asks_as_qwen3(checkpoint)


def check(checkpoint: Checkpoint, config: ScorerConfig) -> None:
    refuse_longest_first(config, "the text of query and passage is cut at the passage's end")
    check_plain_backbone(checkpoint)
    check_sides(checkpoint, config, pads=False, chats=True)
    saved = Saved.of(checkpoint)
    if saved.kinds != ("Transformer", "LogitScore") or saved.paths[0]:
        raise ModelError(
            f"{saved.path}: names {', '.join(saved.kinds)}; logit_score runs a Transformer and a LogitScore"
        )
    check_chats(checkpoint, saved)
    saved.check_transformer("text-generation", "logits", chats=True)
    logit_tokens(checkpoint, saved)
    saved.check_activation(checkpoint)


def load_encoder(checkpoint: Checkpoint, config: ScorerConfig) -> FrameEncoder:
    saved, asked = Saved.of(checkpoint), config.query_instruction_for_rerank
    instruction = saved.default_prompt if asked is None else asked
    frame = pair_frame(checkpoint, saved, instruction or None)
    max_length = checkpoint.length_limit(config.max_length, saved.max_length(checkpoint))
    return FrameEncoder(frame, saved.tokenizer_of(checkpoint), max_length, config)


def load_network(checkpoint: Checkpoint, config: ScorerConfig) -> Any:
    return load_weights(transformers.AutoModelForCausalLM, checkpoint, config, getattr(torch, config.dtype))


def load_model(checkpoint: Checkpoint, config: ScorerConfig, _engine: Engine) -> HeadedDecoder:
    return of_tokens(load_network(checkpoint, config), _tokens(checkpoint), config)


def batch_scores(network: Any, checkpoint: Checkpoint, config: ScorerConfig) -> BatchScores:
    return of_tokens_with_gradients(network, _tokens(checkpoint), config)


def _tokens(checkpoint: Checkpoint) -> Tokens:
    tokens = logit_tokens(checkpoint, Saved.of(checkpoint))
    assert tokens is not None  # or `check` had refused it
    return tokens
