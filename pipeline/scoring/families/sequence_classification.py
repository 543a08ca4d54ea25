"""Cross-encoders with a classification head of one logit: bge-reranker-base, -large, -v2-m3 and their like.

As in FlagEmbedding 1.4.2 (inference/reranker/encoder_only/base.py), with which the published scores were
made, query and passage are tokenized apart and cut as ids, and max_length counts the special tokens.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
import transformers
from tokenizers import Tokenizer

from pipeline.errors import ModelError
from pipeline.scoring.batch_loop import BatchLoop, Forwarded
from pipeline.scoring.batching import Group, IndexArray, Sequences
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.device import Device
from pipeline.scoring.encoding import (
    EncodedPairs,
    IntArray,
    passage_offsets,
    token_ids,
    with_instruction,
)
from pipeline.scoring.engine import Engine
from pipeline.scoring.truncation import Truncation, check_positions
from pipeline.scoring.weights import load_weights

HANDLES = (
    "*ForSequenceClassification with one logit (bge-reranker-base, -large, -v2-m3, other cross-encoders)"
)
OPTIONS = frozenset(
    {
        "truncation",
        "query_max_length",
        "normalize",
        "query_instruction_for_rerank",
        "query_instruction_format",
        "passage_instruction_for_rerank",
        "passage_instruction_format",
    }
)
ENGINES = None
EMBEDS = False


def handles(checkpoint: Checkpoint) -> bool:
    return checkpoint.architecture.endswith("ForSequenceClassification")


class PairTemplate(NamedTuple):
    """The special tokens around a pair."""

    before: IntArray
    between: IntArray
    after: IntArray

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "PairTemplate":
        """Read off a pair that the tokenizer puts together, so that it holds for every tokenizer."""
        pair = tokenizer.encode("a", "b")
        ids = np.array(pair.ids, np.int32)
        parts = np.array([-1 if part is None else part for part in pair.sequence_ids])
        query, passage = np.flatnonzero(parts == 0), np.flatnonzero(parts == 1)
        return cls(
            before=ids[: query[0]],
            between=ids[query[-1] + 1 : passage[0]],
            after=ids[passage[-1] + 1 :],
        )


class PairEncoder:
    """`[CLS] query [SEP] passage [SEP]`, in whatever special tokens the tokenizer has for it."""

    def __init__(self, checkpoint: Checkpoint, config: ScorerConfig) -> None:
        self._config = config
        self._tokenizer = checkpoint.tokenizer
        self._template = PairTemplate.of(self._tokenizer)
        self._has_token_types = checkpoint.has_token_types
        self._max_positions = checkpoint.max_positions
        self.max_length = checkpoint.length_limit(config.max_length, otherwise=512)
        self._room = self.max_length - sum(map(len, self._template))
        self._truncation = Truncation(config, self.max_length)

    def encode(self, queries: Sequence[str], passages: Sequence[str]) -> EncodedPairs:
        config = self._config
        queries = with_instruction(
            queries, config.query_instruction_for_rerank, config.query_instruction_format
        )
        passages = with_instruction(
            passages, config.passage_instruction_for_rerank, config.passage_instruction_format
        )
        query_ids, passage_ids = token_ids(self._tokenizer, queries), token_ids(self._tokenizer, passages)
        before, between, after = self._template
        fits, sequences, type_one_starts = [], [], []
        for index, (query_text, passage_text) in enumerate(zip(queries, passages, strict=True)):
            query, passage = query_ids[query_text], passage_ids[passage_text]
            fit = self._truncation.fit(index, len(query), len(passage), self._room)
            fits.append(fit)
            for span in fit.windows:
                first = np.concatenate([before, query[slice(*fit.query)], between])
                sequences.append(np.concatenate([first, passage[slice(*span)], after]))
                check_positions(index, len(sequences[-1]), self._max_positions)
                type_one_starts.append(len(first) if self._has_token_types else len(sequences[-1]))
        return EncodedPairs.of(fits, sequences, {"type_one_start": type_one_starts})

    def passage_offsets(self, _query: str, passage: str) -> list[tuple[int, int]]:
        instruction, form = (
            self._config.passage_instruction_for_rerank,
            self._config.passage_instruction_format,
        )
        (text,) = with_instruction([passage], instruction, form)
        return passage_offsets(self._tokenizer, text, text.rfind(passage))


class PairClassifier:
    """The backbone with its one-logit head."""

    def __init__(self, checkpoint: Checkpoint, config: ScorerConfig, engine: Engine) -> None:
        network = load_network(checkpoint, config)
        device = Device(config, network.config)
        self._logits, drops_padding = engine.prepare(
            network, "logits", device.torch, getattr(torch, config.dtype)
        )
        self._loop = BatchLoop(device, drops_padding=drops_padding)
        self._pad_id = getattr(network.config, "pad_token_id", None) or 0
        self._has_token_types = checkpoint.has_token_types

    @property
    def max_batch_tokens(self) -> int:
        return self._loop.device.max_batch_tokens

    @torch.inference_mode()
    def forward(self, sequences: pa.ListArray, inputs: pa.Table) -> Forwarded:
        starts = inputs["type_one_start"].to_numpy()

        def logits(ids: torch.Tensor, mask: torch.Tensor, batch: IndexArray) -> torch.Tensor:
            extra = {}
            if self._has_token_types:
                positions = torch.arange(ids.shape[1], device=ids.device)
                start = torch.from_numpy(starts[batch]).to(ids.device)
                extra["token_type_ids"] = (positions >= start[:, None]).long() * mask
            return self._logits(ids, mask, **extra)[:, 0]

        everything = [Group(np.arange(len(starts)))]
        scores, tokens, padded = self._loop.run(Sequences.of(sequences), everything, self._pad_id, logits)
        return Forwarded(scores, tokens, padded)


def load_encoder(checkpoint: Checkpoint, config: ScorerConfig) -> PairEncoder:
    return PairEncoder(checkpoint, config)


def load_network(checkpoint: Checkpoint, config: ScorerConfig) -> Any:
    return load_weights(transformers.AutoModelForSequenceClassification, checkpoint, config)


def load_model(checkpoint: Checkpoint, config: ScorerConfig, engine: Engine) -> PairClassifier:
    return PairClassifier(checkpoint, config, engine)


def check(checkpoint: Checkpoint, _config: ScorerConfig) -> None:
    # transformers takes two labels where config.json names none.
    labels = checkpoint.config.get("num_labels") or len(checkpoint.config.get("id2label") or "12")
    if labels != 1:
        raise ModelError(
            f"{checkpoint.name}: its head has {labels} labels, a reranker has one logit. It is a classifier"
            " (NLI, sentiment, ...); use one trained to score relevance, such as BAAI/bge-reranker-v2-m3"
        )
