"""The scorer: pairs in, one score each out. The offline job and the endpoint run this same class."""

from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import ConfigError, ModelError, ScoringError
from pipeline.ranking import input_order
from pipeline.scoring.checkpoint import find_adapter, find_checkpoint
from pipeline.scoring.config import Dtype, Limits, ScorerConfig
from pipeline.scoring.copies import distinct
from pipeline.scoring.device import failure, is_out_of_memory, resolve_device
from pipeline.scoring.dtype import settled
from pipeline.scoring.encoding import EncodedPairs, Role, listed, pairs_of, span_read, texts_of
from pipeline.scoring.engine import Engine, QuantizingEngine
from pipeline.scoring.family import (
    EmbeddingEncoder,
    EmbeddingModel,
    Encoder,
    Model,
    encoder_for,
    load_engine,
    load_family,
    with_truncation,
)
from pipeline.scoring.names_elsewhere import METHODS
from pipeline.scoring.once import embed_once, score_once
from pipeline.scoring.parts import PART_PAIRS, score_in_parts
from pipeline.scoring.quantization import (
    Quantized,
    Reading,
    Recording,
    fingerprint_of,
    header_of,
    stored_bytes,
)
from pipeline.scoring.results import Embedded, Heard, RankedPassage, Scored, sigmoid
from pipeline.scoring.trial import try_model
from pipeline.scoring.truncation import Lengths
from pipeline.scoring.weights import check_adapter


class Scorer:
    """Scores pairs with one checkpoint.

    Making one finds the checkpoint (a hub's is downloaded) and its family, and checks the options. The
    tokenizer loads with the first `encode`, the weights with the first `forward`; `score` does both. So a
    process that only encodes holds no weights. `dtype: auto` is settled when the weights load, by their
    device; `config` then has the dtype.
    """

    def __init__(self, config: ScorerConfig) -> None:
        """Raises ModelError or ConfigError where the checkpoint or an option does not fit."""
        if not isinstance(config, ScorerConfig):
            raise ConfigError(f"a Scorer takes a config: write Scorer(ScorerConfig(model={config!r}))")
        self.checkpoint = find_checkpoint(config)
        self.adapter = find_adapter(config)
        self._family = load_family(self.checkpoint, config)
        self.config = config = with_truncation(self._family, self.checkpoint, config)
        self._engine = load_engine(self._family, self.checkpoint, config)
        if self.adapter is not None:
            check_adapter(self.adapter)
        # Of no method: a Scorer that is dropped shall be gone at once, and its weights with it.
        self._limited = lru_cache(maxsize=128)(partial(encoder_for, self._family, self.checkpoint, config))

    if not TYPE_CHECKING:  # a type checker would take every name for a method

        def __getattr__(self, name: str) -> Any:
            if name in METHODS:
                raise AttributeError(f"a Scorer has no {name}; write {METHODS[name]}")
            return object.__getattribute__(self, name)  # its own error, and that of a property

    @property
    def fingerprint(self) -> str:
        """A hash of the weights and all else that is loaded, an adapter and a calibrated model included.

        Raises ModelError where quantization has no calibrated model yet.
        """
        quantization = self.config.quantization
        if quantization is None:
            return self._weights
        calibrated = quantization.fingerprint or fingerprint_of(stored_bytes(quantization))
        return f"{self._weights} + {quantization.kind} {calibrated}"

    @property
    def _weights(self) -> str:
        fingerprint = self.checkpoint.fingerprint
        return fingerprint if self.adapter is None else f"{fingerprint} + {self.adapter.fingerprint}"

    @property
    def pinned_config(self) -> ScorerConfig:
        """The config for processes elsewhere: paths absolute, the hub's branch pinned to a commit."""
        checkpoint, adapter, given = self.checkpoint, self.adapter, self.config
        model = {
            "model": given.model if given.model.startswith("package:") else checkpoint.address,
            "revision": checkpoint.revision,
            "peft_path": adapter and adapter.address,
            "peft_revision": adapter and adapter.revision,
        }
        return given.model_copy(update=model)

    def settle(self, dtype: Dtype) -> None:
        """Take this dtype where the config says `auto`: another process has the device, and asked it."""
        if self.config.dtype == "auto":
            self.config = self.config.model_copy(update={"dtype": dtype})

    @property
    def family(self) -> str:
        """The name of the checkpoint's family, as `ScorerConfig.family` takes it."""
        return self._family.__name__.rpartition(".")[2]

    @property
    def embeds(self) -> bool:
        """Whether it embeds a text alone."""
        return self._family.EMBEDS

    @property
    def normalizes(self) -> bool:
        """Whether the scores are logits, which a sigmoid puts between 0 and 1."""
        return "normalize" in self._family.OPTIONS

    @property
    def lengths(self) -> Lengths:
        """To how many tokens it cuts. The tokenizer loads."""
        return Lengths.of(self.config, self.encoder.max_length, self.checkpoint.max_positions)

    @cached_property
    def encoder(self) -> Encoder:
        return encoder_for(self._family, self.checkpoint, self.config, Limits())

    @cached_property
    def model(self) -> Model:
        device = resolve_device(self.config.device)  # a mistake there is told before minutes of loading
        self.config = settled(self.config)
        try:
            model = self._family.load_model(self.checkpoint, self.config, self._computing)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                lack = f"{self.checkpoint.name}: its weights don't fit in the memory of the device"
                raise ModelError(lack) from error
            if (broken := failure(device, error, "while weights were loaded")) is not None:
                raise broken from error
            raise
        try_model(model, self.encode, self.checkpoint, self.config)
        return model

    @property
    def _computing(self) -> Engine:
        """The engine, of the calibrated model where there is one."""
        engine, quantized = self._engine, self._quantized()
        if quantized is None:
            return engine
        assert isinstance(engine, QuantizingEngine)
        return Reading(engine, quantized)

    def _quantized(self) -> Quantized | None:
        quantization = self.config.quantization
        if quantization is None:
            return None
        return Quantized.read(quantization, self.config.engine, self._weights)

    def check_calibration(self) -> None:
        """Raises ModelError where quantization has no calibrated model, or another one's."""
        self._quantized()

    def calibrate(self, pairs: Iterable[tuple[str, str]]) -> bytes:
        """The file for `quantization.path`: the model quantized as the config says, calibrated on the pairs.

        The pairs stand for those that it will score. The file there is neither read nor written.
        """
        engine, quantization = self._engine, self.config.quantization
        assert isinstance(engine, QuantizingEngine)
        assert quantization is not None
        recording = Recording(engine)
        encoded = self.encode(pairs)
        once = distinct(encoded)
        self._family.load_model(self.checkpoint, self.config, recording).forward(once.sequences, once.inputs)
        return recording.quantized(header_of(engine, self._weights, quantization, recording.tokens))

    def load_network(self) -> torch.nn.Module:
        """The network as published, for training or export: a new one each time, with gradients.

        On the CPU, an adapter merged in, up to the last cutoff; tensors named as in the checkpoint.
        Encoders come in float32, decoders in the config's dtype. In evaluation mode, as transformers does it.
        """
        self.config = settled(self.config)
        network: torch.nn.Module = self._family.load_network(self.checkpoint, self.config)
        return network

    def encode(self, pairs: Iterable[tuple[str, str]], limits: Limits | None = None) -> EncodedPairs:
        """Tokenize (query, passage) pairs. Raises ScoringError for what is not text or does not fit.

        pairs: a list, what can be iterated once, or a table of two columns; ConfigError for what is no list.
        limits: replace the config's for this call. Raises ConfigError or ModelError where they don't fit.
        """
        pairs = pairs_of(pairs)
        encoder = self.encoder if limits is None else self._limited(limits)
        if limits is not None and encoder.max_length > self.encoder.max_length:
            encoder = self._limited(limits.model_copy(update={"max_length": None}))
        return encoder.encode([query for query, _ in pairs], [passage for _, passage in pairs])

    def spans_read(self, pairs: Sequence[tuple[str, str]], encoded: EncodedPairs) -> list[tuple[int, int]]:
        """For each passage, the first character that the model sees, and the one past the last.

        encoded: what `encode` gave for the pairs.
        """
        rows = zip(pairs, encoded.pairs.to_pylist(), strict=True)
        return [span_read(self.encoder.passage_offsets, *pair, row) for pair, row in rows]

    def forward(self, encoded: EncodedPairs) -> Scored:
        """Score encoded pairs, equal ones once: they get the same score, bit for bit.

        Raises ScoringError for the first pair that fails or has no finite score.
        """
        long_passages = self.config.long_passages
        strategy = long_passages.strategy if long_passages else "first"
        return score_once(self.model, encoded, strategy, self.config.dtype)

    def shown(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The raw scores of `forward` as the config shows them: through a sigmoid where `normalize` says so.

        Rank first: in float32 the sigmoid makes one value of many.
        """
        return sigmoid(scores) if self.config.normalize else scores

    def score(self, pairs: Iterable[tuple[str, str]]) -> npt.NDArray[np.float32]:
        """One finite float32 score for each (query, passage) pair, in order: (pairs,). Higher is better.

        pairs: as `encode` takes them. Several cutoff layers give one column each: (pairs, cutoffs). Raises
        ScoringError, with the pair's position, for one that is no pair of texts, does not fit, or has no
        finite score, and ConfigError for what is no list.
        """
        pairs = pairs_of(pairs)
        if len(pairs) <= PART_PAIRS or self.embeds or resolve_device(self.config.device).type == "cpu":
            return self.shown(self.forward(self.encode(pairs)).scores)
        _ = self.model  # tried with the tokenizer, which one thread at a time may use
        return self.shown(score_in_parts(pairs, self.encode, self.forward))

    def embed(self, texts: Iterable[str], role: Role) -> npt.NDArray[np.float32]:
        """One embedding for each text, (texts, width), in input order; equal texts are embedded once.

        texts: a list, or what can be iterated once. role: `query` or `passage`. A text gets the instruction
        and prompt that it has in a pair. The score of a pair is the similarity, as the checkpoint names it,
        of its two embeddings. Raises ConfigError where the family does not embed and for one text alone,
        ScoringError for what is not text, does not fit, or has no finite embedding.
        """
        if self.config.long_passages is not None:
            raise ConfigError(
                "long_passages: a text has one embedding here; take embed_windows, or set it to null",
                field="long_passages",
            )
        return self.embed_windows(texts, role).embeddings

    def embed_windows(self, texts: Iterable[str], role: Role, heard: Heard | None = None) -> Embedded:
        """As `embed`, with `long_passages`: an embedding for each window of a passage. heard: told of it."""
        if not self.embeds:
            raise ConfigError(
                f"{self.checkpoint.name}: the family {self.family} scores pairs, it embeds no texts"
            )
        if role not in get_args(Role):
            raise ConfigError(f"role {role!r}: a text is a {' or a '.join(get_args(Role))}")
        texts = texts_of(texts)
        try:
            encoded = cast("EmbeddingEncoder", self.encoder).encode_texts(texts, role)
        except ScoringError as error:
            raise ScoringError(error.index, error.reason, "text") from error
        return embed_once(cast("EmbeddingModel", self.model), *encoded, heard)

    def rank(self, query: str, passages: Iterable[str], top_k: int | None = None) -> list[RankedPassage]:
        """The passages, best first by their raw scores; equal ones keep the order they came in.

        top_k: how many; None: all. Raises ConfigError for a top_k below 1, several cutoff layers or what is
        no list, and ScoringError as `score` does.
        """
        if top_k is not None and top_k < 1:
            raise ConfigError(f"top_k {top_k}: give 1 or more, or None for all")
        passages = listed(passages, "passages")
        encoded = self.encode([(query, passage) for passage in passages])
        scored = self.forward(encoded)
        if scored.scores.ndim > 1:
            raise ConfigError(
                "cutoff_layers: passages rank by one score; ask for one layer", field="cutoff_layers"
            )
        order, shown = input_order(scored.scores)[:top_k], self.shown(scored.scores)
        cuts = encoded.pairs.select(["query_cut", "passage_cut"]).to_pylist()
        return [
            RankedPassage(
                rank=rank,
                score=float(shown[index]),
                index=int(index),
                passage=passages[index],
                window=int(scored.windows[index]),
                **cuts[index],
            )
            for rank, index in enumerate(order, start=1)
        ]
