"""Cross-encoders with a classification head of one logit: bge-reranker-base, -large, -v2-m3 and their like.

How a pair is cut follows FlagEmbedding 1.4.2 (inference/reranker/encoder_only/base.py), with which the
published scores were made: query and passage are tokenized apart, the query is cut to query_max_length and
the passage to max_length, then only the passage is cut until the pair fits. Where that would leave nothing
of the passage, the pair is left over-long.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipeline.errors import ModelError, ScoringError
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.device import Forwarded, batch_tokens, resolve_device, run_batches, sigmoid
from pipeline.scoring.encoding import (
    EncodedPairs,
    IntArray,
    load_tokenizer,
    sequences_of,
    token_ids,
    with_instruction,
)
from pipeline.scoring.weights import cast_trunk, load_weights

HANDLES = (
    "*ForSequenceClassification with one logit (bge-reranker-base, -large, -v2-m3, other cross-encoders)"
)
OPTIONS = frozenset(
    {
        "query_max_length",
        "normalize",
        "query_instruction_for_rerank",
        "query_instruction_format",
        "passage_instruction_for_rerank",
        "passage_instruction_format",
    }
)


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
        self._tokenizer = load_tokenizer(checkpoint)
        self._template = PairTemplate.of(self._tokenizer)
        self._has_token_types = _has_token_types(checkpoint)
        self._max_positions = checkpoint.max_positions
        self._max_length = checkpoint.length_limit(config.max_length, otherwise=512)
        self._query_max_length = config.query_max_length or self._max_length * 3 // 4

    def encode(self, queries: Sequence[str], passages: Sequence[str]) -> EncodedPairs:
        config = self._config
        queries = with_instruction(
            queries, config.query_instruction_for_rerank, config.query_instruction_format
        )
        passages = with_instruction(
            passages, config.passage_instruction_for_rerank, config.passage_instruction_format
        )
        query_ids, passage_ids = token_ids(self._tokenizer, queries), token_ids(self._tokenizer, passages)
        rows = [
            self._encode_pair(index, query_ids[query], passage_ids[passage])
            for index, (query, passage) in enumerate(zip(queries, passages, strict=True))
        ]
        sequences = sequences_of([ids for ids, _, _ in rows])
        pairs = pa.table(
            {
                "truncated": pa.array([truncated for _, _, truncated in rows], pa.bool_()),
                "type_one_start": pa.array([start for _, start, _ in rows], pa.int32()),
            }
        )
        return EncodedPairs(sequences, pairs)

    def _encode_pair(self, index: int, query: IntArray, passage: IntArray) -> tuple[IntArray, int, bool]:
        """The ids, where token type 1 begins, and whether anything was cut."""
        before, between, after = self._template
        kept_query, kept_passage = query[: self._query_max_length], passage[: self._max_length]
        special = len(before) + len(between) + len(after)
        excess = len(kept_query) + len(kept_passage) + special - self._max_length
        if 0 < excess < len(kept_passage):
            kept_passage = kept_passage[:-excess]
        ids = np.concatenate([before, kept_query, between, kept_passage, after])
        if self._max_positions is not None and len(ids) > self._max_positions:
            raise ScoringError(
                index,
                f"{len(ids)} tokens for a model of {self._max_positions} positions: query_max_length"
                f" {self._query_max_length} leaves the passage no room; set it lower",
            )
        truncated = len(kept_query) < len(query) or len(kept_passage) < len(passage)
        passage_start = len(before) + len(kept_query) + len(between)
        return ids, passage_start if self._has_token_types else len(ids), truncated


class PairClassifier:
    """The trunk with its one-logit head."""

    def __init__(self, checkpoint: Checkpoint, config: ScorerConfig) -> None:
        self._device = resolve_device(config.device)
        model = load_weights(AutoModelForSequenceClassification, checkpoint, config)
        self._model = cast_trunk(model, getattr(torch, config.dtype)).to(self._device).eval()
        self._normalize = config.normalize
        self._max_batch_tokens = batch_tokens(self._device, config, model.config)
        self._pad_id = getattr(model.config, "pad_token_id", None) or 0
        self._has_token_types = _has_token_types(checkpoint)

    @torch.inference_mode()
    def forward(self, encoded: EncodedPairs) -> Forwarded:
        starts = encoded.pairs["type_one_start"].to_numpy()

        def logits(ids: torch.Tensor, mask: torch.Tensor, batch: npt.NDArray[np.int64]) -> torch.Tensor:
            more: dict[str, Any] = {}
            if self._has_token_types:
                positions = torch.arange(ids.shape[1], device=ids.device)
                start = torch.from_numpy(starts[batch]).to(ids.device)
                more["token_type_ids"] = (positions >= start[:, None]).long() * mask
            result: torch.Tensor = self._model(input_ids=ids, attention_mask=mask, **more).logits
            return result[:, 0]

        scores, tokens, padded = run_batches(
            encoded.sequences, self._max_batch_tokens, self._pad_id, self._device, logits
        )
        return Forwarded(sigmoid(scores) if self._normalize else scores, tokens, padded)


def load_encoder(checkpoint: Checkpoint, config: ScorerConfig) -> PairEncoder:
    _refuse_several_labels(checkpoint)
    return PairEncoder(checkpoint, config)


def load_model(checkpoint: Checkpoint, config: ScorerConfig) -> PairClassifier:
    _refuse_several_labels(checkpoint)
    return PairClassifier(checkpoint, config)


def _has_token_types(checkpoint: Checkpoint) -> bool:
    """Whether the passage's tokens are of type 1, as in BERT: model and tokenizer must both know types."""
    if int(checkpoint.config.get("type_vocab_size") or 0) < 2:
        return False
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, trust_remote_code=checkpoint.trust_remote_code)
    return "token_type_ids" in tokenizer.model_input_names


def _refuse_several_labels(checkpoint: Checkpoint) -> None:
    # transformers takes two labels where config.json names none.
    labels = checkpoint.config.get("num_labels") or len(checkpoint.config.get("id2label") or "12")
    if labels != 1:
        raise ModelError(
            f"{checkpoint.name}: its head has {labels} labels, a reranker has one logit. It is a classifier"
            " (NLI, sentiment, ...); use one trained to score relevance, such as BAAI/bge-reranker-v2-m3"
        )
