"""The scorers of dense sources. torch comes with this module: a first stage by words alone does without."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple, cast

from pipeline.errors import ConfigError, ModelError, TemporaryError
from pipeline.retrieval.config import DenseConfig, scorer_field
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.dtype import check_native
from pipeline.scoring.family import EmbeddingEncoder
from pipeline.scoring.lean_imports import lean_imports
from pipeline.scoring.saved_modules import Saved
from pipeline.scoring.truncation import Lengths


class Found(NamedTuple):
    """A scorer as the plan of a job needs it."""

    config: ScorerConfig
    """As every process must find it."""
    fingerprint: str
    """Of its weights and files."""
    by_cosine: bool
    """Whether its embeddings must be normalized before their inner product is what compares."""


def find(source: str, dense: DenseConfig, config: ScorerConfig) -> Found:
    """config: that of `dense`, on its device. Loads the tokenizer, no weights.

    Raises ModelError or ConfigError where it embeds no texts, compares them as no search here does, or does
    not take the lengths that the config gives.
    """
    with named(source, config), lean_imports():
        scorer = Scorer(config)
        if not scorer.embeds:
            raise ConfigError(
                f"model {scorer.checkpoint.name}: the family {scorer.family} scores pairs, it embeds no"
                " texts",
                field="model",
            )
        saved = Saved.of(scorer.checkpoint)
        if saved.similarity not in ("cosine", "dot"):
            raise ModelError(
                f"{scorer.checkpoint.name}: compares embeddings by {saved.similarity}; only cosine and dot"
                " can be searched"
            )
        # What is wrong with lengths is told by the encoder, which would else be asked after all was read.
        cast("EmbeddingEncoder", scorer.encoder).encode_texts([], "query")
        # Not where the checkpoint gives normalized embeddings, and they are kept as they are.
        ends_normalized = saved.kinds[-1:] == ("Normalize",) and saved.truncate_dim is None
        normalized = ends_normalized and dense.dtype == "float32"
        by_cosine = saved.similarity == "cosine" and not normalized
        return Found(scorer.pinned_config, scorer.fingerprint, by_cosine)


@lru_cache(maxsize=1)
def loaded(source: str, config: ScorerConfig, *, was_auto: bool) -> Scorer:
    """With its weights: one a process, however many shards it embeds.

    was_auto: its dtype was found elsewhere, so this process looks whether its device agrees.
    """
    with named(source, config), lean_imports():
        if was_auto:
            check_native(config)
        scorer = Scorer(config)
        _ = scorer.model
        return scorer


def encoder_of(source: str, config: ScorerConfig) -> EmbeddingEncoder:
    """Loads the tokenizer, no weights."""
    with named(source, config), lean_imports():
        return cast("EmbeddingEncoder", Scorer(config).encoder)


def lengths_of(source: str, config: ScorerConfig) -> Lengths:
    """To how many tokens it cuts. Loads the tokenizer, no weights."""
    with named(source, config), lean_imports():
        return Scorer(config).lengths


@contextmanager
def named(source: str, config: ScorerConfig) -> Iterator[None]:
    """An error of a source's scorer begins with the field that is at fault, as a user writes it.

    What a scorer tells of no option is of the checkpoint, or of its adapter.
    """
    try:
        yield
    except (ConfigError, ModelError, TemporaryError) as error:
        field = error.field
        if field is None:
            adapter = config.peft_path is not None and error.message.startswith(config.peft_path)
            field = "peft_path" if adapter else "model"
            error.message = f"{field}: {error.message}"
        error.field = f"{scorer_field(source)}.{field}"
        error.message = f"{scorer_field(source)}.{error.message}"
        raise
