"""Causal language models that answer in a chat, as sentence-transformers saves them: a chat template puts the
pair, and a LogitScore reads the logit of one token, less that of another where it names two.

So are zerank-2, ctxl-rerank-v2 and others published. A score is that of sentence_transformers 6.2
(CrossEncoder with the activation Identity): the whole text is tokenized at once, and one that is too long
loses the passage's end, since what stands behind it has to stay (_restore_chat_template_suffix in
base/modules/transformer.py). Where the passage stands before the query, that library cuts the query off; here
the passage is cut there, too.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from tokenizers import Encoding

from pipeline.errors import ModelError, ScoringError
from pipeline.scoring.batch_loop import BatchScores
from pipeline.scoring.chat_template import PairFrame, asks_as_qwen3, check_chats, pair_frame
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.encoding import EncodedPairs, IntArray
from pipeline.scoring.engine import Engine
from pipeline.scoring.headed_decoder import (
    LAYERWISE_ENGINES,
    HeadedDecoder,
    Tokens,
    check_causal,
    of_tokens,
    of_tokens_with_gradients,
)
from pipeline.scoring.saved_modules import Saved, check_sides, logit_tokens
from pipeline.scoring.truncation import Fit, Truncation, check_room, refuse_longest_first
from pipeline.scoring.weights import load_weights

HANDLES = "Llama, Qwen2 or Qwen3 with a chat template and a LogitScore (zerank-2, ctxl-rerank-v2)"
OPTIONS = frozenset({"truncation", "normalize", "query_instruction_for_rerank"})
ENGINES = LAYERWISE_ENGINES
EMBEDS = False
TRAINED: dict[str, str] = {}

_BACKBONES = ("llama", "qwen2", "qwen3")
"""Whose logits are plain products of the last state: others scale them, cap them, or add to them."""
_FILLER = "0"
"""A text as any other: what is behind it is tokenized as behind a passage."""


def handles(checkpoint: Checkpoint) -> bool:
    return "LogitScore" in Saved.of(checkpoint).kinds and not asks_as_qwen3(checkpoint)


class Parts(NamedTuple):
    """The tokens of a pair. One that holds a text's beginning and what is before it is the text's, as is one
    that holds the passage's end.
    """

    before: IntArray
    """What stands before the first text."""
    head: IntArray
    """From there to the passage: the query, where it is first."""
    passage: IntArray
    rest: IntArray


class FrameEncoder:
    """Pairs in a frame. Its `inputs`: query_length, all before the passage, prompt_length, all after it."""

    def __init__(self, checkpoint: Checkpoint, config: ScorerConfig) -> None:
        saved, asked = Saved.of(checkpoint), config.query_instruction_for_rerank
        instruction = saved.default_prompt if asked is None else asked
        self._frame: PairFrame = pair_frame(checkpoint, saved, instruction or None)
        self._tokenizer = saved.lower_cased(checkpoint.tokenizer)
        self.max_length = checkpoint.length_limit(config.max_length, saved.max_length(checkpoint))
        self._truncation = Truncation(config, self.max_length)
        self._after = self._rest("")
        empty, _, _ = self._frame.text("", "")
        check_room(self.max_length - len(self._encoded(empty).ids), 1, self.max_length)

    def encode(self, queries: Sequence[str], passages: Sequence[str]) -> EncodedPairs:
        framed = [self._frame.text(*pair) for pair in zip(queries, passages, strict=True)]
        encodings = self._tokenizer.encode_batch([text for text, _, _ in framed], add_special_tokens=False)
        fits, sequences, before, after = [], [], [], []
        for index, (encoding, (_, begin, end)) in enumerate(zip(encodings, framed, strict=True)):
            parts = self._parts(encoding, begin, end)
            if len(encoding.ids) > self.max_length:
                rest = self._after if self._frame.is_query_first else self._rest(queries[index])
                parts = parts._replace(rest=rest)
            fit = self._fit(index, parts)
            head = np.concatenate([parts.before, parts.head[slice(*fit.query)]])
            sequences += [
                np.concatenate([head, parts.passage[slice(*span)], parts.rest]) for span in fit.windows
            ]
            fits.append(fit)
            before += [len(head)] * len(fit.windows)
            after += [len(parts.rest)] * len(fit.windows)
        return EncodedPairs.of(fits, sequences, {"query_length": before, "prompt_length": after})

    def passage_offsets(self, query: str, passage: str) -> list[tuple[int, int]]:
        text, begin, end = self._frame.text(query, passage)
        encoding = self._encoded(text)
        parts = self._parts(encoding, begin, end)
        first, last = len(parts.before) + len(parts.head), len(encoding.ids) - len(parts.rest)
        left_out, length = passage.index(text[begin:end]), len(passage)
        return [
            (min(max(0, start - begin) + left_out, length), min(max(0, stop - begin) + left_out, length))
            for start, stop in encoding.offsets[first:last]
        ]

    def _fit(self, index: int, parts: Parts) -> Fit:
        room = self.max_length - len(parts.before) - len(parts.rest)
        if room < 0:
            raise ScoringError(
                index, "the query leaves the passage no room: raise max_length or shorten the query"
            )
        query, passage = len(parts.head), len(parts.passage)
        return self._truncation.fit_apart(index, query, passage, room, room - min(query, room))

    def _parts(self, encoding: Encoding, begin: int, end: int) -> Parts:
        """begin, end: of the passage, in the text."""
        ids, offsets = np.array(encoding.ids, np.int32), np.array(encoding.offsets).reshape(-1, 2)
        starts, stops = offsets[:, 0], offsets[:, 1]
        first = int(np.searchsorted(stops, begin, side="right"))
        last = max(first, int(np.searchsorted(starts, end)))
        fixed = min(first, int(np.searchsorted(stops, len(self._frame.before), side="right")))
        return Parts(ids[:fixed], ids[fixed:first], ids[first:last], ids[last:])

    def _rest(self, query: str) -> IntArray:
        """What stands behind a passage, the query where it is second."""
        text, begin, end = self._frame.text(query, _FILLER)
        return self._parts(self._encoded(text), begin, end).rest

    def _encoded(self, text: str) -> Encoding:
        return self._tokenizer.encode(text, add_special_tokens=False)


def check(checkpoint: Checkpoint, config: ScorerConfig) -> None:
    refuse_longest_first(config, "the text of query and passage is cut at the passage's end")
    _ = checkpoint.architecture_config
    if checkpoint.model_type not in _BACKBONES:
        raise checkpoint.config.wrong(
            "model_type",
            f"{checkpoint.model_type} is not run here with a LogitScore, {', '.join(_BACKBONES)} are",
        )
    check_causal(checkpoint)
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
    return FrameEncoder(checkpoint, config)


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
