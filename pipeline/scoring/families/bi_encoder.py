"""Embedding models: the score is the inner product of the query's and the passage's embedding.

The cheap scorer of a cascade: each distinct query and passage of the pairs at hand is embedded once. Runs
the BGE embedding models (bge-small, -base, -large; CLS pooling, normalized) and every sentence-transformers
checkpoint made of a transformer, a pooling and perhaps a normalization, as its modules.json says. Pooling
follows sentence_transformers 6.2 (sentence_transformer/modules/pooling.py).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from transformers import AutoModel

from pipeline.errors import ModelError, ScoringError
from pipeline.scoring.batching import Group, IndexArray, Sequences
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.device import Device, Forwarded
from pipeline.scoring.encoding import (
    EncodedPairs,
    passage_offsets,
    token_ids,
    with_instruction,
)
from pipeline.scoring.truncation import Truncation, refuse_longest_first
from pipeline.scoring.weights import cast, load_weights

HANDLES = "sentence-transformers checkpoints with a modules.json (bge-*-v1.5, MiniLM, other embedding models)"
OPTIONS = frozenset({"truncation", "query_instruction_for_retrieval", "query_instruction_format"})

Pooling = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def handles(checkpoint: Checkpoint) -> bool:
    # A cross-encoder that sentence-transformers saved has a modules.json too.
    has_modules = (checkpoint.path / "modules.json").is_file()
    return has_modules and not checkpoint.architecture.endswith("ForSequenceClassification")


class TextEncoder:
    """Each distinct text becomes one sequence; a pair is two indices into them."""

    def __init__(self, checkpoint: Checkpoint, config: ScorerConfig) -> None:
        self._config = config
        self._tokenizer = checkpoint.tokenizer
        settings = _read_optional(checkpoint, "sentence_bert_config.json")
        self._prompt = _default_prompt(checkpoint)
        self._lower_case = bool(settings.get("do_lower_case"))
        self.max_length = _max_length(checkpoint, config, settings)
        self._truncation = Truncation(config, self.max_length)
        probe = self._tokenizer.encode("a")
        text = [position for position, part in enumerate(probe.sequence_ids) if part == 0]
        ids = np.array(probe.ids, np.int32)
        self._before, self._after = ids[: text[0]], ids[text[-1] + 1 :]

    def encode(self, queries: Sequence[str], passages: Sequence[str]) -> EncodedPairs:
        config = self._config
        instruction = config.query_instruction_for_retrieval
        queries = with_instruction(queries, instruction or self._prompt, config.query_instruction_format)
        passages = with_instruction(passages, self._prompt, "{}{}")
        if self._lower_case:
            queries, passages = [text.lower() for text in queries], [text.lower() for text in passages]
        ids = token_ids(self._tokenizer, [*queries, *passages])
        room = self.max_length - len(self._before) - len(self._after)
        if room < 1:
            raise ModelError(
                f"scorer.max_length {self.max_length}: leaves a text no room beside special tokens"
            )
        places: dict[tuple[str, int, int], int] = {}
        fits, query_places, passage_places = [], [], []
        for index, (query, passage) in enumerate(zip(queries, passages, strict=True)):
            fit = self._truncation.fit_apart(index, len(ids[query]), len(ids[passage]), room, room)
            fits.append(fit)
            for span in fit.windows:
                query_places.append(places.setdefault((query, *fit.query), len(places)))
                passage_places.append(places.setdefault((passage, *span), len(places)))
        sequences = [
            np.concatenate([self._before, ids[text][start:stop], self._after]) for text, start, stop in places
        ]
        return EncodedPairs.of(
            fits, sequences, {"query_sequence": query_places, "passage_sequence": passage_places}
        )

    def passage_offsets(self, _query: str, passage: str) -> list[tuple[int, int]]:
        (text,) = with_instruction([passage], self._prompt, "{}{}")
        text = text.lower() if self._lower_case else text
        return passage_offsets(self._tokenizer, text, len(text) - len(passage))


class Embedder:
    """The backbone, its pooling and, where the checkpoint has one, its normalization."""

    def __init__(self, checkpoint: Checkpoint, config: ScorerConfig) -> None:
        if checkpoint.config.get("is_encoder_decoder"):
            raise ModelError(
                f"{checkpoint.name}: {checkpoint.architecture} has a decoder; bi_encoder runs encoders"
            )
        self._pooling, self._normalized = _pooling_of(checkpoint)
        # The pooler of BertModel and its like feeds a classifier; embeddings come from the hidden states.
        model = load_weights(AutoModel, checkpoint, config, unused=("pooler.",))
        cast(model, getattr(torch, config.dtype))
        self._device = Device(config, model.config)
        self._model = model.to(self._device.torch).eval()
        self._pad_id = getattr(model.config, "pad_token_id", None) or 0

    @property
    def max_batch_tokens(self) -> int:
        return self._device.max_batch_tokens

    @torch.inference_mode()
    def forward(self, sequences: pa.ListArray, inputs: pa.Table) -> Forwarded:
        queries, passages = (inputs[name].to_numpy() for name in ("query_sequence", "passage_sequence"))
        texts, everything = Sequences.of(sequences), [Group(np.arange(len(sequences)))]
        try:
            embeddings, tokens, padded = self._device.run(texts, everything, self._pad_id, self._embed)
        except ScoringError as error:
            reader = np.flatnonzero((queries == error.index) | (passages == error.index))[0]
            raise ScoringError(int(reader), error.reason) from error
        if not len(queries):
            return Forwarded(np.zeros(0, np.float32), tokens, padded)
        scores: npt.NDArray[np.float32] = np.einsum("ij,ij->i", embeddings[queries], embeddings[passages])
        return Forwarded(scores, tokens, padded)

    def _embed(self, ids: torch.Tensor, mask: torch.Tensor, _batch: IndexArray) -> torch.Tensor:
        hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        embedding = torch.cat([pool(hidden, mask[:, :, None].float()) for pool in self._pooling], dim=-1)
        return torch.nn.functional.normalize(embedding, dim=-1) if self._normalized else embedding


def check(_checkpoint: Checkpoint, config: ScorerConfig) -> None:
    refuse_longest_first(config, "each text is cut on its own")


def load_encoder(checkpoint: Checkpoint, config: ScorerConfig) -> TextEncoder:
    return TextEncoder(checkpoint, config)


def load_model(checkpoint: Checkpoint, config: ScorerConfig) -> Embedder:
    return Embedder(checkpoint, config)


# hidden: (batch, length, width); mask: (batch, length, 1), 1.0 where a token is real, padding on the right.


def _cls(hidden: torch.Tensor, _mask: torch.Tensor) -> torch.Tensor:
    return hidden[:, 0]


def _max(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return hidden.masked_fill(mask == 0, -torch.inf).amax(dim=1)


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)


def _mean_sqrt(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9).sqrt()


def _weighted_mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask * torch.arange(1, hidden.shape[1] + 1, device=hidden.device)[:, None]
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


def _last_token(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    last = mask.sum(dim=1).long().clamp(min=1) - 1
    return hidden[torch.arange(len(hidden), device=hidden.device), last[:, 0]]


# In the order in which sentence-transformers concatenates them; the second name is that of older files.
_POOLINGS: dict[str, tuple[str, Pooling]] = {
    "cls": ("pooling_mode_cls_token", _cls),
    "max": ("pooling_mode_max_tokens", _max),
    "mean": ("pooling_mode_mean_tokens", _mean),
    "mean_sqrt_len_tokens": ("pooling_mode_mean_sqrt_len_tokens", _mean_sqrt),
    "weightedmean": ("pooling_mode_weightedmean_tokens", _weighted_mean),
    "lasttoken": ("pooling_mode_lasttoken", _last_token),
}


def _pooling_of(checkpoint: Checkpoint) -> tuple[list[Pooling], bool]:
    """The poolings to concatenate, and whether the embedding is normalized; BGE's own where nothing says."""
    if not (checkpoint.path / "modules.json").is_file():
        return [_cls], True
    modules = {
        str(module["type"]).rpartition(".")[2]: module["path"]
        for module in checkpoint.read_json("modules.json")
    }
    strange = sorted(modules.keys() - {"Transformer", "Pooling", "Normalize"})
    if modules.get("Transformer"):
        strange.append(f"its Transformer in {modules['Transformer']}")
    if strange or "Pooling" not in modules:
        raise ModelError(
            f"{checkpoint.name}: modules.json has {', '.join(strange) or 'no Pooling'};"
            " bi_encoder runs a Transformer, a Pooling and perhaps a Normalize"
        )
    settings = checkpoint.read_json(f"{modules['Pooling']}/config.json")
    if settings.get("include_prompt") is False:
        raise ModelError(
            f"{checkpoint.name}: leaves the prompt out of its pooling, which bi_encoder does not do"
        )
    named = settings.get("pooling_mode") or [
        name for name, (key, _) in _POOLINGS.items() if settings.get(key)
    ]
    names = [named] if isinstance(named, str) else named or ["mean"]
    unknown = sorted(set(names) - _POOLINGS.keys())
    if unknown:
        raise ModelError(
            f"{checkpoint.name}: unknown pooling {unknown[0]!r}; known are {', '.join(_POOLINGS)}"
        )
    return [_POOLINGS[name][1] for name in names], "Normalize" in modules


def _default_prompt(checkpoint: Checkpoint) -> str | None:
    """What sentence-transformers puts before every text where nothing else is asked for."""
    settings = _read_optional(checkpoint, "config_sentence_transformers.json")
    name = settings.get("default_prompt_name")
    return None if name is None else str(settings.get("prompts", {}).get(name, "")) or None


def _max_length(checkpoint: Checkpoint, config: ScorerConfig, settings: dict[str, Any]) -> int:
    tokenizer_config = _read_optional(checkpoint, "tokenizer_config.json")
    own = settings.get("max_seq_length") or tokenizer_config.get("model_max_length") or 512
    return checkpoint.length_limit(config.max_length, otherwise=int(own))


def _read_optional(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    return dict(checkpoint.read_json(name)) if (checkpoint.path / name).is_file() else {}
