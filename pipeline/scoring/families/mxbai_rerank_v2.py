"""mxbai-rerank-base-v2, -large-v2: a Qwen2 chat model asked for "1" or "0" about query and passage.

As published (mxbai_rerank 0.1.6, mxbai_rerank_v2.py): every part is tokenized on its own; query, separator
and passage have max_length to themselves, the query three quarters of it at most; the score is the logit of
"1" less that of "0". A folder of sentence-transformers that holds such a model is of the family logit_score.
"""

from typing import Any

import torch
import transformers

from pipeline.errors import ModelError
from pipeline.scoring.batch_loop import BatchScores
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.engine import Engine
from pipeline.scoring.headed_decoder import (
    LAYERWISE_ENGINES,
    HeadedDecoder,
    Tokens,
    check_causal,
    of_tokens,
    of_tokens_with_gradients,
)
from pipeline.scoring.prompting import PROMPT_OPTIONS, PromptEncoder, PromptForm, first_token
from pipeline.scoring.saved_modules import Saved, check_sides
from pipeline.scoring.weights import load_weights

HANDLES = "Qwen2ForCausalLM trained to answer 1 or 0 (mxbai-rerank-base-v2, -large-v2), where family names it"
OPTIONS = PROMPT_OPTIONS
ENGINES = LAYERWISE_ENGINES
EMBEDS = False
TRAINED: dict[str, str] = {}

_FORM = PromptForm(
    begin="<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    "<|im_end|>\n<|im_start|>user\n",
    query="query: ",
    passage="document: ",
    end="<|im_end|>\n<|im_start|>assistant\n",
    max_length=8192,
    is_around=True,
)
_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each"
    " query-document pair, carefully analyze the semantic relationship between them, then provide your binary"
    " relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
)


def handles(_checkpoint: Checkpoint) -> bool:
    """Its files are those of any Qwen2 that chats, and such a one would get scores that mean nothing."""
    return False


def check(checkpoint: Checkpoint, config: ScorerConfig) -> None:
    if checkpoint.architecture != "Qwen2ForCausalLM":
        raise checkpoint.config.wrong("architectures", "mxbai_rerank_v2 runs Qwen2ForCausalLM alone")
    saved = Saved.of(checkpoint)
    if saved.kinds:
        raise ModelError(
            f"{saved.path}: names {', '.join(saved.kinds)}: leave family away, they say how it is run"
        )
    _ = checkpoint.architecture_config
    check_causal(checkpoint)
    check_sides(checkpoint, config, pads=False, chats=True)


def load_encoder(checkpoint: Checkpoint, config: ScorerConfig) -> PromptEncoder:
    return PromptEncoder(checkpoint, config, _TASK, _FORM)


def load_network(checkpoint: Checkpoint, config: ScorerConfig) -> Any:
    return load_weights(transformers.Qwen2ForCausalLM, checkpoint, config, getattr(torch, config.dtype))


def load_model(checkpoint: Checkpoint, config: ScorerConfig, _engine: Engine) -> HeadedDecoder:
    return of_tokens(load_network(checkpoint, config), _tokens(checkpoint), config)


def batch_scores(network: Any, checkpoint: Checkpoint, config: ScorerConfig) -> BatchScores:
    return of_tokens_with_gradients(network, _tokens(checkpoint), config)


def _tokens(checkpoint: Checkpoint) -> Tokens:
    return first_token(checkpoint, "1"), first_token(checkpoint, "0")
