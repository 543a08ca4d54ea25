"""Qwen3-Reranker (0.6B, 4B, 8B): a causal language model asked for "yes" or "no" in a chat.

As published (the model card of Qwen/Qwen3-Reranker-0.6B, its transformers example): instruction, query and
passage are tokenized as one text, which is cut at its end; the turns around it are tokenized on their own.
The published score is the softmax over the two logits, which `normalize: true` gives; without it, the score
is their difference. As published today, modules.json names the two tokens (LogitScore, as in
sentence_transformers 6.2, cross_encoder/modules/logit_score.py), and a chat template puts pairs as this file.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers

from pipeline.errors import ModelError
from pipeline.scoring.batch_loop import BatchScores
from pipeline.scoring.chat_template import QWEN3_TASK, asks_as_qwen3, check_chats, pair_frame
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.encoding import EncodedPairs, passage_offsets
from pipeline.scoring.engine import Engine
from pipeline.scoring.frame_encoder import PairFrame
from pipeline.scoring.headed_decoder import (
    LAYERWISE_ENGINES,
    HeadedDecoder,
    Tokens,
    check_causal,
    of_tokens,
    of_tokens_with_gradients,
)
from pipeline.scoring.saved_modules import Saved, check_sides, logit_tokens
from pipeline.scoring.truncation import Truncation, check_room, refuse_longest_first
from pipeline.scoring.weights import load_weights

HANDLES = "Qwen3ForCausalLM trained to answer yes or no (Qwen3-Reranker)"
OPTIONS = frozenset({"truncation", "normalize", "query_instruction_for_rerank"})
ENGINES = LAYERWISE_ENGINES
EMBEDS = False
TRAINED: dict[str, str] = {}

_SYSTEM = (
    f'<|im_start|>system\n{QWEN3_TASK} Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
_ASSISTANT = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
_MAX_LENGTH = 8192


def handles(checkpoint: Checkpoint) -> bool:
    kinds = Saved.of(checkpoint).kinds
    is_causal = checkpoint.architecture == "Qwen3ForCausalLM" and "Pooling" not in kinds
    # Code of its own may ask otherwise, as zerank-1's did before it had modules.
    asks_so = asks_as_qwen3(checkpoint) if "LogitScore" in kinds else not checkpoint.config.object("auto_map")
    return is_causal and asks_so


class ChatEncoder:
    """Pairs as chats. Its `inputs`: query_length, all before the passage, and prompt_length, all after it."""

    def __init__(self, checkpoint: Checkpoint, config: ScorerConfig) -> None:
        saved = Saved.of(checkpoint)
        self._tokenizer = saved.tokenizer_of(checkpoint)
        self._begin, self._end = (
            np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)
            for text in (_SYSTEM, _ASSISTANT)
        )
        instruction = config.query_instruction_for_rerank
        self._instruction = _INSTRUCTION if instruction is None else instruction
        _check_chat_template(checkpoint)
        own = saved.told_length or checkpoint.tokenizer_max_length or _MAX_LENGTH
        self.max_length = checkpoint.length_limit(config.max_length, min(_MAX_LENGTH, own))
        self._room = self.max_length - len(self._begin) - len(self._end)
        check_room(self._room, 1, self.max_length)
        self._truncation = Truncation(config, self.max_length)

    def encode(self, queries: Sequence[str], passages: Sequence[str]) -> EncodedPairs:
        heads = [self._head(query) for query in queries]
        bodies = [head + passage for head, passage in zip(heads, passages, strict=True)]
        fits, sequences, query_lengths = [], [], []
        encodings = self._tokenizer.encode_batch(bodies, add_special_tokens=False)
        for index, (head, encoding) in enumerate(zip(heads, encodings, strict=True)):
            ids = np.array(encoding.ids, np.int32)
            # A token that holds the end of the head and the beginning of the passage is the passage's.
            first = int(np.searchsorted([stop for _, stop in encoding.offsets], len(head), side="right"))
            query, passage = ids[:first], ids[first:]
            left = self._room - min(first, self._room)
            fit = self._truncation.fit_apart(index, first, len(passage), self._room, left)
            before = np.concatenate([self._begin, query[slice(*fit.query)]])
            fits.append(fit)
            sequences += [np.concatenate([before, passage[slice(*span)], self._end]) for span in fit.windows]
            query_lengths += [len(before)] * len(fit.windows)
        prompt_lengths = [len(self._end)] * len(sequences)
        return EncodedPairs.of(
            fits, sequences, {"query_length": query_lengths, "prompt_length": prompt_lengths}
        )

    def passage_offsets(self, query: str, passage: str) -> list[tuple[int, int]]:
        head = self._head(query)
        offsets = passage_offsets(self._tokenizer, lambda text: head + text, passage)
        return [(first, stop) for first, stop in offsets if stop > 0]  # the head's tokens are the query's

    def _head(self, query: str) -> str:
        return f"<Instruct>: {self._instruction}\n<Query>: {query}\n<Document>: "


def check(checkpoint: Checkpoint, config: ScorerConfig) -> None:
    refuse_longest_first(config, "the text of query and passage is cut at its end, as published")
    _ = checkpoint.architecture_config
    check_causal(checkpoint)
    check_sides(checkpoint, config, pads=False, chats=True)
    saved = Saved.of(checkpoint)
    if not saved.kinds:
        return
    if saved.kinds != ("Transformer", "LogitScore") or saved.paths[0]:
        raise ModelError(
            f"{saved.path}: names {', '.join(saved.kinds)}; qwen3 runs a Transformer and a LogitScore"
        )
    saved.check_transformer("text-generation", "logits", chats=True)
    if saved.modalities:
        check_chats(checkpoint, saved)
    logit_tokens(checkpoint, saved)
    saved.check_activation(checkpoint)
    if saved.default_prompt not in (None, _INSTRUCTION) and config.query_instruction_for_rerank is None:
        raise ModelError(
            f"{checkpoint.name}: its default prompt (config_sentence_transformers.json) is not the published"
            f" instruction: set query_instruction_for_rerank to {saved.default_prompt!r}"
        )


def load_encoder(checkpoint: Checkpoint, config: ScorerConfig) -> ChatEncoder:
    return ChatEncoder(checkpoint, config)


def load_network(checkpoint: Checkpoint, config: ScorerConfig) -> Any:
    return load_weights(transformers.Qwen3ForCausalLM, checkpoint, config, getattr(torch, config.dtype))


def load_model(checkpoint: Checkpoint, config: ScorerConfig, _engine: Engine) -> HeadedDecoder:
    return of_tokens(load_network(checkpoint, config), _tokens(checkpoint), config)


def batch_scores(network: Any, checkpoint: Checkpoint, config: ScorerConfig) -> BatchScores:
    return of_tokens_with_gradients(network, _tokens(checkpoint), config)


def _tokens(checkpoint: Checkpoint) -> Tokens:
    return logit_tokens(checkpoint, Saved.of(checkpoint)) or _yes_and_no(checkpoint)


def _yes_and_no(checkpoint: Checkpoint) -> tuple[int, int]:
    yes, no = (checkpoint.tokenizer.token_to_id(word) for word in ("yes", "no"))
    if yes is None or no is None:
        raise ModelError(f"{checkpoint.name}: its tokenizer has no tokens 'yes' and 'no'")
    return yes, no


def _check_chat_template(checkpoint: Checkpoint) -> None:
    """Raises ModelError where sentence-transformers, by the checkpoint's template, puts a pair otherwise."""
    saved = Saved.of(checkpoint)
    if not saved.modalities:
        return
    frame = pair_frame(checkpoint, saved, saved.default_prompt)
    before = f"{_SYSTEM}<Instruct>: {saved.default_prompt or _INSTRUCTION}\n<Query>: "
    if frame != PairFrame(before, "\n<Document>: ", _ASSISTANT, is_query_first=True, strips=False):
        raise ModelError(
            f"{checkpoint.name}: its chat template puts a pair otherwise than Qwen3-Reranker's does; such a"
            " checkpoint is not run here"
        )
