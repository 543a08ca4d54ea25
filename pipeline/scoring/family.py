"""What a family of models meets, and how a checkpoint finds its family.

A family is one module in `families/`. Its file is all that it takes: nothing else lists it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, cast, runtime_checkable

import pyarrow as pa

from pipeline import registry
from pipeline.errors import ConfigError, ModelError
from pipeline.scoring import engines, families
from pipeline.scoring.batch_loop import BatchScores, Forwarded
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import Limits, ScorerConfig
from pipeline.scoring.encoding import EncodedPairs, IntArray, Role
from pipeline.scoring.engine import Engine, QuantizingEngine
from pipeline.scoring.results import Heard


class Encoder(Protocol):
    """Texts to token ids. Needs a CPU and the tokenizer, no weights."""

    max_length: int
    """Tokens of a pair, special ones included, as ScorerConfig.max_length counts them."""

    def encode(self, queries: Sequence[str], passages: Sequence[str]) -> EncodedPairs:
        """Encode pair i, (queries[i], passages[i]). Raises ScoringError for one the model has no room for."""

    def passage_offsets(self, query: str, passage: str, /) -> list[tuple[int, int]]:
        """Of each of the passage's tokens, its first character in the passage and the one past its last."""


class EmbeddingEncoder(Encoder, Protocol):
    """The encoder of a family that embeds."""

    def encode_texts(self, texts: Sequence[str], role: Role) -> tuple[pa.ListArray, IntArray, IntArray]:
        """Token ids, one sequence a window of each text, as the texts of pairs get; each text's windows; and
        how many of its tokens no window reads.

        A query has one window. Raises ScoringError as `encode` does.
        """


class Model(Protocol):
    """The weights, on their device."""

    @property
    def max_batch_tokens(self) -> int:
        """Padded tokens that go through at once; fewer, once memory has run out."""

    def forward(self, sequences: pa.ListArray, inputs: pa.Table) -> Forwarded:
        """One float32 score a row of `inputs`, as EncodedPairs has them, all sequences read by some row.

        Raises ScoringError with the index of such a row.
        """


class EmbeddingModel(Model, Protocol):
    """The model of a family that embeds."""

    def embed(self, sequences: pa.ListArray, heard: Heard | None = None) -> Forwarded:
        """One embedding a sequence, (sequences, width). Raises ScoringError with a sequence's index."""


@runtime_checkable
class TrainableFamily(Protocol):
    """What a family has beside the rest where its network can be trained."""

    TRAINED: Mapping[str, str]
    """What config.json of a trained checkpoint says besides."""

    def batch_scores(self, network: Any, checkpoint: Checkpoint, config: ScorerConfig) -> BatchScores:
        """Of what `load_network` gave, of all its heads, the last one last. The network stays where it is."""


@runtime_checkable
class CuttingFamily(Protocol):
    """What a family has beside the rest where some of its checkpoints were made with another truncation than
    FlagEmbedding's.
    """

    def own_truncation(self, checkpoint: Checkpoint, /) -> Literal["flag_embedding", "longest_first"]:
        """What is cut of a pair that is too long, as the checkpoint's makers do it."""


class Family(Protocol):
    """A module in `families/`."""

    __name__: str

    OPTIONS: frozenset[str]
    """The ScorerConfig fields that this family gives a meaning to, beside those that all have."""
    HANDLES: str
    """The checkpoints it runs, in words, for messages."""
    ENGINES: frozenset[str] | None
    """The engines that can run its network; null: every one that says so."""
    EMBEDS: bool
    """Whether it embeds a text alone: its encoder is an EmbeddingEncoder, its model an EmbeddingModel."""

    def handles(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint's own files say that it is of this family."""

    def check(self, checkpoint: Checkpoint, config: ScorerConfig) -> None:
        """Raises ConfigError or ModelError for what can be seen not to fit without loading anything."""

    def load_encoder(self, checkpoint: Checkpoint, config: ScorerConfig) -> Encoder: ...

    def load_network(self, checkpoint: Checkpoint, config: ScorerConfig) -> Any:
        """The torch.nn.Module as published, up to the last cutoff layer, an adapter merged in: on the CPU,
        with gradients, in evaluation mode as transformers loads it.

        Encoders come in float32, decoders in the config's dtype.
        """

    def load_model(self, checkpoint: Checkpoint, config: ScorerConfig, engine: Engine, /) -> Model:
        """The network for evaluation, on its device."""


_COMMON_OPTIONS = frozenset(
    {
        "model",
        "family",
        "revision",
        "local_files_only",
        "trust_remote_code",
        "peft_path",
        "peft_revision",
        "engine",
        "device",
        "dtype",
        "quantization",
        "max_batch_tokens",
        "max_length",
        "passage_max_length",
        "truncation_side",
        "long_passages",
    }
)


_INSTEAD = {
    "query_max_length": "max_length, which cuts queries too",
    "query_instruction_for_rerank": "query_instruction_for_retrieval",
    "query_instruction_for_retrieval": "query_instruction_for_rerank",
}
"""What a family has that lacks the option."""


def all_families() -> dict[str, Family]:
    """Every module of `families/`, by its name."""
    return {name: cast("Family", registry.load(families, name)) for name in registry.names_in(families)}


def load_family(checkpoint: Checkpoint, config: ScorerConfig) -> Family:
    """The family that `config.family` names, or that the checkpoint's files call for.

    Raises ConfigError for an unknown name or an option the family has no use for, ModelError where no
    family handles the checkpoint.
    """
    known = all_families()
    if config.family is not None and config.family not in known:
        raise ConfigError(
            f"family: no family {config.family!r}; there are {', '.join(known)}", field="family"
        )
    claims = [name for name, family in known.items() if family.handles(checkpoint)]
    if config.family is None and len(claims) > 1:
        raise ModelError(
            f"{checkpoint.name}: its files are those of {' and of '.join(claims)}; set family to one of them"
        )
    name = config.family or next(iter(claims), None)
    if name is None:
        kinds = "\n".join(f"  {name}: {family.HANDLES}" for name, family in known.items())
        raise ModelError(
            f"{checkpoint.name}: {checkpoint.architecture} is of no family known here:\n{kinds}\n"
            "Where it is one of these all the same, set family"
        )
    changed = {
        field for field, info in ScorerConfig.model_fields.items() if getattr(config, field) != info.default
    }
    unused = sorted(changed - _COMMON_OPTIONS - known[name].OPTIONS)
    if unused:
        way_out = f"; use {_INSTEAD[unused[0]]}" if unused[0] in _INSTEAD else ""
        raise ConfigError(
            f"{unused[0]}: the family {name} of {checkpoint.name} has no such option{way_out}; its own are"
            f" {', '.join(sorted(known[name].OPTIONS))}",
            field=unused[0],
        )
    checkpoint.check()
    known[name].check(checkpoint, config)
    return known[name]


def with_truncation(family: Family, checkpoint: Checkpoint, config: ScorerConfig) -> ScorerConfig:
    """The config, with what `truncation` is where it is not set."""
    if config.truncation is not None:
        return config
    own = "flag_embedding"
    if isinstance(family, CuttingFamily) and config.long_passages is None:
        own = family.own_truncation(checkpoint)
    return config.model_copy(update={"truncation": own})


def recorded_truncation(name: str, checkpoint: Checkpoint, config: ScorerConfig) -> str | None:
    """What records say of a Scorer's truncation. name: of its family.

    In older records flag_embedding stands for what was not set, also where a checkpoint's makers cut
    otherwise. So where it is asked for of such a checkpoint it has another name, and is not mixed with these.
    """
    own = with_truncation(all_families()[name], checkpoint, config.model_copy(update={"truncation": None}))
    is_other = config.truncation == "flag_embedding" != own.truncation
    return "flag_embedding, not as its makers cut" if is_other else config.truncation


def encoder_for(family: Family, checkpoint: Checkpoint, config: ScorerConfig, limits: Limits) -> Encoder:
    """With these limits in place of the config's. Raises ConfigError or ModelError where they don't fit."""
    config = with_truncation(family, checkpoint, limits.applied_to(config))
    family.check(checkpoint, config)
    return family.load_encoder(checkpoint, config)


def load_engine(family: Family, checkpoint: Checkpoint, config: ScorerConfig) -> Engine:
    """The engine that `config.engine` names.

    Raises ConfigError for an unknown name, one that is not installed, or one that does not run the checkpoint
    with these options.
    """
    name, family_name = config.engine, family.__name__.rpartition(".")[2]
    known = registry.names_in(engines)
    if name not in known:
        raise ConfigError(f"engine: no engine {name!r}; there are {', '.join(known)}", field="engine")
    engine = cast("Engine", registry.load(engines, name))
    if not engine.is_available():
        raise ConfigError(f"engine {name}: is not installed here: {engine.INSTALL}", field="engine")
    reason = engine.supports(family_name, checkpoint, config)
    if reason is None and family.ENGINES is not None and name not in family.ENGINES:
        reason = f"the family {family_name} is run by {', '.join(sorted(family.ENGINES))} alone"
    if reason is not None:
        raise ConfigError(f"engine {name}: {reason}", field="engine")
    if config.quantization is not None and not isinstance(engine, QuantizingEngine):
        raise ConfigError(
            f"quantization: engine {name} computes no {config.quantization.kind}; set engine to openvino",
            field="quantization",
        )
    return engine
