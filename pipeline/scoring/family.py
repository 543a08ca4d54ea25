"""What a family of models meets, and how a checkpoint finds its family.

A family is one module in `families/`. Its file is all that it takes: nothing else lists it.
"""

import pkgutil
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

import pyarrow as pa

from pipeline.errors import ConfigError, ModelError
from pipeline.scoring import families
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.device import Forwarded
from pipeline.scoring.encoding import EncodedPairs


class Encoder(Protocol):
    """Texts to token ids. Needs a CPU and the tokenizer, no weights."""

    max_length: int
    """Tokens of a pair, special ones included, as ScorerConfig.max_length counts them."""

    def encode(self, queries: Sequence[str], passages: Sequence[str]) -> EncodedPairs:
        """Encode pair i, (queries[i], passages[i]). Raises ScoringError for one the model has no room for."""

    def passage_offsets(self, query: str, passage: str, /) -> list[tuple[int, int]]:
        """Of each of the passage's tokens, its first character in the passage and the one past its last."""


class Model(Protocol):
    """The weights, on their device."""

    @property
    def max_batch_tokens(self) -> int:
        """Padded tokens that go through at once; fewer, once memory has run out."""

    def forward(self, sequences: pa.ListArray, inputs: pa.Table) -> Forwarded:
        """One float32 score a row of `inputs`, as EncodedPairs has them, all sequences read by some row.

        Raises ScoringError with the index of such a row.
        """


class Family(Protocol):
    """A module in `families/`."""

    __name__: str

    OPTIONS: frozenset[str]
    """The ScorerConfig fields that this family gives a meaning to, beside those that all have."""
    HANDLES: str
    """The checkpoints it runs, in words, for messages."""

    def handles(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint's own files say that it is of this family."""

    def check(self, checkpoint: Checkpoint, config: ScorerConfig) -> None:
        """Raises ConfigError or ModelError for what can be seen not to fit without loading anything."""

    def load_encoder(self, checkpoint: Checkpoint, config: ScorerConfig) -> Encoder: ...

    def load_model(self, checkpoint: Checkpoint, config: ScorerConfig) -> Model: ...


_COMMON_OPTIONS = frozenset(
    {
        "model",
        "family",
        "revision",
        "local_files_only",
        "trust_remote_code",
        "peft_path",
        "peft_revision",
        "device",
        "dtype",
        "max_batch_tokens",
        "max_length",
        "passage_max_length",
        "truncation_side",
        "long_passages",
    }
)


def all_families() -> dict[str, Family]:
    """Every module of `families/`, by its name."""
    names = [module.name for module in pkgutil.iter_modules(families.__path__)]
    return {name: cast("Family", import_module(f"{families.__name__}.{name}")) for name in names}


def load_family(checkpoint: Checkpoint, config: ScorerConfig) -> Family:
    """The family that `config.family` names, or that the checkpoint's files call for.

    Raises ConfigError for an unknown name or an option the family has no use for, ModelError where no
    family handles the checkpoint.
    """
    known = all_families()
    if config.family is not None and config.family not in known:
        raise ConfigError(f"scorer.family: no family {config.family!r}; there are {', '.join(known)}")
    name = config.family or next((name for name, family in known.items() if family.handles(checkpoint)), None)
    if name is None:
        kinds = "\n".join(f"  {name}: {family.HANDLES}" for name, family in known.items())
        raise ModelError(
            f"{checkpoint.name}: {checkpoint.architecture} is of no family known here:\n{kinds}\n"
            "Where it is one of these all the same, set scorer.family"
        )
    changed = {
        field for field, info in ScorerConfig.model_fields.items() if getattr(config, field) != info.default
    }
    unused = sorted(changed - _COMMON_OPTIONS - known[name].OPTIONS)
    if unused:
        raise ConfigError(f"scorer.{unused[0]}: the family {name} of {checkpoint.name} has no such option")
    known[name].check(checkpoint, config)
    return known[name]
