"""Embedding models: the score is the similarity of the query's and the passage's embedding.

The cheap scorer of a cascade: each distinct query and passage of the pairs at hand is embedded once. Runs
the BGE embedding models (bge-small, -base, -large; CLS pooling, normalized) and every sentence-transformers
checkpoint made of a transformer, a pooling and perhaps modules behind it, as its modules.json says. Pooling,
prompts and similarity follow sentence_transformers 6.2 (sentence_transformer/model.py, modules/pooling.py,
util/similarity.py): those of encode_query, encode_document and similarity.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import transformers

from pipeline.errors import ModelError, ScoringError
from pipeline.scoring.batch_loop import BatchLoop, Forwarded
from pipeline.scoring.batching import Group, IndexArray, Sequences
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.device import Device
from pipeline.scoring.encoding import (
    EncodedPairs,
    IntArray,
    Role,
    passage_offsets,
    sequences_of,
    token_ids,
    with_instruction,
)
from pipeline.scoring.engine import Engine
from pipeline.scoring.headed_decoder import check_long_rope
from pipeline.scoring.module_chain import KINDS, ModuleChain
from pipeline.scoring.pooling import SIMILARITIES, Pooling, last_token, mean, poolings_of
from pipeline.scoring.results import Heard
from pipeline.scoring.saved_modules import Saved, check_sides
from pipeline.scoring.truncation import Truncation, check_room, refuse_longest_first
from pipeline.scoring.weights import load_weights

HANDLES = "sentence-transformers checkpoints with a modules.json (bge-*-v1.5, MiniLM, other embedding models)"
OPTIONS = frozenset({"truncation", "query_instruction_for_retrieval", "query_instruction_format"})
ENGINES = None
EMBEDS = True


def handles(checkpoint: Checkpoint) -> bool:
    # A cross-encoder that sentence-transformers saved has a modules.json too.
    saved = Saved.of(checkpoint)
    if saved.pools:
        return not saved.has_modular_head
    cross_encoder = saved.model_type == "CrossEncoder" or "LogitScore" in saved.kinds
    return (
        bool(saved.kinds)
        and not cross_encoder
        and not checkpoint.architecture.endswith("ForSequenceClassification")
    )


class TextEncoder:
    """Each distinct text becomes one sequence; a pair is two indices into them."""

    def __init__(self, checkpoint: Checkpoint, config: ScorerConfig) -> None:
        saved = Saved.of(checkpoint)
        self._config = config
        self._tokenizer = saved.tokenizer_of(checkpoint)
        self._prompts = saved.role_prompts()
        self.max_length = checkpoint.length_limit(config.max_length, saved.max_length(checkpoint))
        self._truncation = Truncation(config, self.max_length)
        probe = self._tokenizer.encode("a")
        text = [position for position, part in enumerate(probe.sequence_ids) if part == 0]
        if not text or (any(probe.type_ids) and checkpoint.has_token_types):
            raise ModelError(f"{checkpoint.name}: its tokenizer puts a text together as none here does")
        ids = np.array(probe.ids, np.int32)
        self._before, self._after = ids[: text[0]], ids[text[-1] + 1 :]

    def encode(self, queries: Sequence[str], passages: Sequence[str]) -> EncodedPairs:
        queries, passages = self._as_read(queries, "query"), self._as_read(passages, "passage")
        ids, room = token_ids(self._tokenizer, [*queries, *passages]), self._room
        places: dict[tuple[str, int, int], int] = {}
        fits, query_places, passage_places = [], [], []
        for index, (query, passage) in enumerate(zip(queries, passages, strict=True)):
            fit = self._truncation.fit_apart(index, len(ids[query]), len(ids[passage]), room, room)
            fits.append(fit)
            for span in fit.windows:
                query_places.append(places.setdefault((query, *fit.query), len(places)))
                passage_places.append(places.setdefault((passage, *span), len(places)))
        sequences = [self._sequence(ids[text][start:stop]) for text, start, stop in places]
        return EncodedPairs.of(
            fits, sequences, {"query_sequence": query_places, "passage_sequence": passage_places}
        )

    def encode_texts(self, texts: Sequence[str], role: Role) -> tuple[pa.ListArray, IntArray, IntArray]:
        texts = self._as_read(texts, role)
        ids, room, sequences = token_ids(self._tokenizer, texts), self._room, []
        counts, cuts = [], []
        for index, text in enumerate(texts):
            lengths = (len(ids[text]), 0) if role == "query" else (0, len(ids[text]))
            fit = self._truncation.fit_apart(index, *lengths, room, room)
            windows = [fit.query] if role == "query" else fit.windows
            sequences += [self._sequence(ids[text][start:stop]) for start, stop in windows]
            counts.append(len(windows))
            cuts.append(fit.query_cut + fit.passage_cut)
        return sequences_of(sequences), np.array(counts, np.int32), np.array(cuts, np.int32)

    def passage_offsets(self, _query: str, passage: str) -> list[tuple[int, int]]:
        return passage_offsets(self._tokenizer, lambda text: self._as_read([text], "passage")[0], passage)

    @property
    def _room(self) -> int:
        """Tokens of a text beside the special ones."""
        room = self.max_length - len(self._before) - len(self._after)
        check_room(room, 1, self.max_length)
        return room

    def _as_read(self, texts: Sequence[str], role: Role) -> Sequence[str]:
        """With what goes before texts of this role."""
        config, (query_prompt, passage_prompt) = self._config, self._prompts
        if role == "passage":
            return with_instruction(texts, passage_prompt, "{}{}")
        instruction = config.query_instruction_for_retrieval
        if instruction is None:
            return with_instruction(texts, query_prompt, "{}{}")
        return with_instruction(texts, instruction, config.query_instruction_format)

    def _sequence(self, ids: IntArray) -> IntArray:
        return np.concatenate([self._before, ids, self._after])


class Embedder:
    """The backbone, its pooling and the modules behind it.

    Embeddings are those of sentence-transformers' `encode`, the scores those of its `similarity`.
    """

    def __init__(self, checkpoint: Checkpoint, config: ScorerConfig, engine: Engine) -> None:
        saved = Saved.of(checkpoint)
        self._pooling = _poolings_of(checkpoint, saved)
        self._similarity = SIMILARITIES[saved.similarity]
        network = load_network(checkpoint, config)
        device = Device(config, network.config)
        self._network = engine.prepare(
            network, "last_hidden_state", device.torch, getattr(torch, config.dtype)
        )
        self._loop = BatchLoop(device, drops_padding=self._network.drops_padding)
        self._pad_id = getattr(network.config, "pad_token_id", None) or 0
        self._chain = (
            ModuleChain.of(checkpoint, saved, len(self._pooling), "sentence_embedding")
            .load(checkpoint)
            .eval()
            .to(device.torch)
        )
        self._width = min(self._chain.width, saved.truncate_dim or self._chain.width)

    @property
    def max_batch_tokens(self) -> int:
        return self._loop.device.max_batch_tokens

    @torch.inference_mode()
    def forward(self, sequences: pa.ListArray, inputs: pa.Table) -> Forwarded:
        queries, passages = (inputs[name].to_numpy() for name in ("query_sequence", "passage_sequence"))
        try:
            embeddings, tokens, padded = self.embed(sequences)
        except ScoringError as error:
            reader = np.flatnonzero((queries == error.index) | (passages == error.index))[0]
            raise ScoringError(int(reader), error.reason) from error
        scores = self._similarity(embeddings[queries], embeddings[passages])
        return Forwarded(scores, tokens, padded)

    @torch.inference_mode()
    def embed(self, sequences: pa.ListArray, heard: Heard | None = None) -> Forwarded:
        texts, everything = Sequences.of(sequences), [Group(np.arange(len(sequences)))]
        embeddings, tokens, padded = self._loop.run(
            texts, everything, self._pad_id, self._embed, self._lay, heard
        )
        return Forwarded(embeddings.reshape(len(sequences), self._width), tokens, padded)

    def _lay(self, ids: torch.Tensor, mask: torch.Tensor, _batch: IndexArray) -> dict[str, Any]:
        return self._network.lay(ids, mask)

    def _embed(self, mask: torch.Tensor, **laid: Any) -> torch.Tensor:
        hidden = self._network.run(mask=mask, **laid).float()
        embedding = torch.cat([pool(hidden, mask[:, :, None].float()) for pool in self._pooling], dim=-1)
        chained: torch.Tensor = self._chain(embedding)
        return chained[:, : self._width]


def check(checkpoint: Checkpoint, config: ScorerConfig) -> None:
    refuse_longest_first(config, "each text is cut on its own")
    _ = checkpoint.architecture_config
    check_long_rope(checkpoint)
    saved = Saved.of(checkpoint)
    of_another = saved.model_type not in ("SentenceTransformer", "CrossEncoder")
    if of_another or saved.has_modular_head or "LogitScore" in saved.kinds:
        raise ModelError(
            f"{checkpoint.name}: is a {saved.model_type}; bi_encoder runs embedding models of one vector"
        )
    if saved.kinds:
        saved.check_transformer("feature-extraction", "last_hidden_state")
    ModuleChain.of(checkpoint, saved, len(_poolings_of(checkpoint, saved)), "sentence_embedding")
    saved.role_prompts()
    _ = saved.similarity, saved.truncate_dim
    check_sides(checkpoint, config, pads=True)


def load_encoder(checkpoint: Checkpoint, config: ScorerConfig) -> TextEncoder:
    return TextEncoder(checkpoint, config)


def load_network(checkpoint: Checkpoint, config: ScorerConfig) -> Any:
    if checkpoint.config.flag("is_encoder_decoder"):
        raise ModelError(
            f"{checkpoint.name}: {checkpoint.architecture} has a decoder; bi_encoder runs encoders"
        )
    # The pooler of BertModel and its like feeds a classifier; embeddings come from the hidden states.
    return load_weights(transformers.AutoModel, checkpoint, config, unused=("pooler.",))


def load_model(checkpoint: Checkpoint, config: ScorerConfig, engine: Engine) -> Embedder:
    return Embedder(checkpoint, config, engine)


def _poolings_of(checkpoint: Checkpoint, saved: Saved) -> list[Pooling]:
    """The poolings to concatenate.

    Where no modules.json says, they are those that sentence-transformers takes: the last token of a causal
    language model, the mean of any other.
    """
    if not saved.kinds:
        causal = (
            checkpoint.architecture.endswith("ForCausalLM")
            and checkpoint.config.flag("is_causal") is not False
        )
        return [last_token if causal else mean]
    if saved.kinds[:2] != ("Transformer", "Pooling") or saved.paths[0] or set(saved.kinds[2:]) - KINDS:
        strange = [kind for kind in saved.kinds if kind not in ("Transformer", "Pooling", *KINDS)]
        strange = strange or [
            f"{kind} in {place or '.'}" for kind, place in zip(saved.kinds, saved.paths, strict=True)
        ]
        raise ModelError(
            f"{checkpoint.name}: modules.json has {', '.join(strange)}; bi_encoder runs a Transformer, a"
            f" Pooling and perhaps {', '.join(sorted(KINDS))} modules"
        )
    return poolings_of(checkpoint.read_object(f"{saved.paths[1]}/config.json"))
