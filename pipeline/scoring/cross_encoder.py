"""What cross-encoders share: query and passage become one sequence, whose score one network gives.

As in FlagEmbedding 1.4.2 (inference/reranker/encoder_only/base.py), query and passage are tokenized apart and
cut as ids, and max_length counts the special tokens. What sentence-transformers saved is put together and cut
as it does that (sentence_transformers 6.2, base/modules/transformer.py, cross_encoder/model.py).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer

from pipeline.errors import ModelError
from pipeline.scoring.batch_loop import BatchLoop, BatchScores, Forwarded
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
from pipeline.scoring.engine import Engine, Output
from pipeline.scoring.saved_modules import Saved
from pipeline.scoring.truncation import Truncation, check_positions, check_room

PAIR_OPTIONS = frozenset(
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
"""The ScorerConfig fields to which PairEncoder, and a logit as a score, give a meaning."""


class PairTemplate(NamedTuple):
    """The special tokens around a pair."""

    before: IntArray
    between: IntArray
    after: IntArray
    zeros_between: int | None
    """How many of those between are of type 0, as the query is; what follows is of type 1. Null: no types."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, tokenizer: Tokenizer) -> "PairTemplate":
        """Read off a pair that the tokenizer puts together, so that it holds for every tokenizer."""
        pair = tokenizer.encode("a", "b")
        ids = np.array(pair.ids, np.int32)
        parts = np.array([-1 if part is None else part for part in pair.sequence_ids])
        query, passage = np.flatnonzero(parts == 0), np.flatnonzero(parts == 1)
        whole = len(query) and len(passage) and query[-1] < passage[0]
        typed = checkpoint.has_token_types and any(pair.type_ids)
        ones = pair.type_ids.count(1)
        first = len(ids) - ones
        stepped = pair.type_ids == [0] * first + [1] * ones and query[-1] < first <= passage[0]
        if not whole or (typed and not stepped):
            raise ModelError(f"{checkpoint.name}: its tokenizer puts a pair together as none here does")
        return cls(
            before=ids[: query[0]],
            between=ids[query[-1] + 1 : passage[0]],
            after=ids[passage[-1] + 1 :],
            zeros_between=int(first - query[-1] - 1) if typed else None,
        )

    @property
    def length(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)


class PairEncoder:
    """`[CLS] query [SEP] passage [SEP]`, in whatever special tokens the tokenizer has for it."""

    def __init__(self, checkpoint: Checkpoint, config: ScorerConfig) -> None:
        saved = saved_of(checkpoint)
        self._config = config
        self._tokenizer = saved.tokenizer_of(checkpoint)
        self._query_prompt = saved.default_prompt
        self._template = PairTemplate.of(checkpoint, self._tokenizer)
        self._max_positions = checkpoint.max_positions
        self.max_length = checkpoint.length_limit(config.max_length, _max_length(checkpoint, saved))
        self._room = self.max_length - self._template.length
        check_room(self._room, 2, self.max_length)
        self._truncation = Truncation(config, self.max_length)

    def encode(self, queries: Sequence[str], passages: Sequence[str]) -> EncodedPairs:
        config = self._config
        if config.query_instruction_for_rerank is None:
            queries = with_instruction(queries, self._query_prompt, "{}{}")
        else:
            queries = with_instruction(
                queries, config.query_instruction_for_rerank, config.query_instruction_format
            )
        passages = with_instruction(
            passages, config.passage_instruction_for_rerank, config.passage_instruction_format
        )
        query_ids, passage_ids = token_ids(self._tokenizer, queries), token_ids(self._tokenizer, passages)
        before, between, after, zeros_between = self._template
        fits, sequences, type_one_starts = [], [], []
        for index, (query_text, passage_text) in enumerate(zip(queries, passages, strict=True)):
            query, passage = query_ids[query_text], passage_ids[passage_text]
            fit = self._truncation.fit(index, len(query), len(passage), self._room)
            fits.append(fit)
            for span in fit.windows:
                first = np.concatenate([before, query[slice(*fit.query)], between])
                sequences.append(np.concatenate([first, passage[slice(*span)], after]))
                check_positions(index, len(sequences[-1]), self._max_positions)
                whole = len(sequences[-1])
                types = len(first) - len(between) + (zeros_between or 0)
                type_one_starts.append(whole if zeros_between is None else types)
        return EncodedPairs.of(fits, sequences, {"type_one_start": type_one_starts})

    def passage_offsets(self, _query: str, passage: str) -> list[tuple[int, int]]:
        instruction, form = (
            self._config.passage_instruction_for_rerank,
            self._config.passage_instruction_format,
        )
        return passage_offsets(
            self._tokenizer, lambda text: with_instruction([text], instruction, form)[0], passage
        )


class PairModel:
    """A network on its device, and what makes a score of its output."""

    def __init__(
        self,
        network: Any,
        output: Output,
        score_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        checkpoint: Checkpoint,
        config: ScorerConfig,
        engine: Engine,
    ) -> None:
        """score_of: of the network's output and the (batch, length) mask, to (batch,), on the device."""
        device = Device(config, network.config)
        self._network = engine.prepare(network, output, device.torch, getattr(torch, config.dtype))
        self._score_of = score_of
        self._loop = BatchLoop(device, drops_padding=self._network.drops_padding)
        self._pad_id = getattr(network.config, "pad_token_id", None) or 0
        self._has_token_types = checkpoint.has_token_types

    @property
    def max_batch_tokens(self) -> int:
        return self._loop.device.max_batch_tokens

    @torch.inference_mode()
    def forward(self, sequences: pa.ListArray, inputs: pa.Table) -> Forwarded:
        starts = inputs["type_one_start"].to_numpy() if self._has_token_types else None

        def lay(ids: torch.Tensor, mask: torch.Tensor, batch: IndexArray) -> dict[str, Any]:
            extra = {}
            if starts is not None:
                extra["token_type_ids"] = _token_types(torch.from_numpy(starts[batch]), mask)
            return self._network.lay(ids, mask, **extra)

        def scores_of(mask: torch.Tensor, **laid: Any) -> torch.Tensor:
            return self._score_of(self._network.run(mask=mask, **laid), mask)

        scores, tokens, padded = self._loop.run(
            Sequences.of(sequences), [Group(np.arange(inputs.num_rows))], self._pad_id, scores_of, lay
        )
        return Forwarded(scores, tokens, padded)


def with_gradients(network: Any, checkpoint: Checkpoint) -> BatchScores:
    """Of a network that gives `logits`, (batch, 1)."""
    has_token_types = checkpoint.has_token_types

    def scores_of(ids: torch.Tensor, mask: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        extra = {"token_type_ids": _token_types(inputs["type_one_start"], mask)} if has_token_types else {}
        logits: torch.Tensor = network(input_ids=ids, attention_mask=mask, return_dict=True, **extra).logits
        return logits

    return scores_of


def _token_types(starts: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(batch, length): 1 for the tokens from each one's start on that are no padding."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    return (positions >= starts[:, None]).long() * mask


def saved_of(checkpoint: Checkpoint) -> Saved:
    """The files of sentence-transformers' CrossEncoder; it reads no others, such as an embedding model's."""
    saved = Saved.of(checkpoint)
    return saved if saved.model_type == "CrossEncoder" else Saved()


def _is_of_sentence_transformers(checkpoint: Checkpoint, saved: Saved) -> bool:
    marks = {"sentence_transformers", "sbert_ce_default_activation_function"}
    return bool(saved.kinds) or not marks.isdisjoint(checkpoint.config.fields)


def truncation_of(checkpoint: Checkpoint) -> Literal["flag_embedding", "longest_first"]:
    """sentence-transformers' own where it saved the checkpoint, else FlagEmbedding's."""
    its_own = _is_of_sentence_transformers(checkpoint, saved_of(checkpoint))
    return "longest_first" if its_own else "flag_embedding"


def _max_length(checkpoint: Checkpoint, saved: Saved) -> int:
    """As sentence-transformers where it saved the checkpoint, else FlagEmbedding's 512, or less."""
    length = saved.max_length(checkpoint)
    return length if _is_of_sentence_transformers(checkpoint, saved) else min(512, length)
