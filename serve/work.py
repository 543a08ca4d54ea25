"""What goes between the API and a replica: pairs to score, and what became of them."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.scoring import Limits


@dataclass(frozen=True)
class Work:
    """The pairs of one request: pair i is (queries[i], passages[i])."""

    queries: list[str]
    passages: list[str]
    limits: Limits = field(default_factory=Limits)
    normalize: bool = True
    """Scores through a sigmoid, where the model's family has that."""
    cutoff_layer: int | None = None
    """Of those that the model is served with. Null: the last one named there."""
    timeout_s: float | None = None
    """Seconds after which nobody waits for it."""
    accepted: bool = False
    """A replica that died had it already: another must not refuse it for what waits there."""
    spans: bool = False
    """Tell which characters of the passages that were cut the model read."""

    @property
    def keys(self) -> list[Hashable]:
        """(pairs,): equal for pairs, of this request and others, that are read and cut alike."""
        limits = self.limits.model_dump_json()
        return [(query, passage, limits) for query, passage in zip(self.queries, self.passages, strict=True)]


@dataclass(frozen=True)
class LevelScores:
    """What one level of a cascade did for a request."""

    places: npt.NDArray[np.int64]
    """The pairs that it saw, of the work's. The fields below are in their order."""
    scores: npt.NDArray[np.float32]
    """As the request wants to see them."""
    ranks: npt.NDArray[np.int32]
    """1-based, within the query, among those that the level saw."""
    tokens: int
    tokenization_s: float
    queue_s: float
    inference_s: float


@dataclass(frozen=True)
class Scores:
    """One entry a pair, in the order of the work."""

    scores: npt.NDArray[np.float32]
    """As the request wants to see them."""
    raw: npt.NDArray[np.float32]
    """What ranks: in float32 the sigmoids of many logits are equal."""
    normalizes: bool
    """Whether they are logits, of which a sigmoid makes scores from 0 to 1."""
    tokens: npt.NDArray[np.int64]
    """That went through the model, special ones included."""
    query_cut: npt.NDArray[np.int32]
    passage_cut: npt.NDArray[np.int32]
    windows: npt.NDArray[np.int32]
    spans: list[tuple[int, int]] | None
    """First character read of each passage, and the one past the last; null where not asked for."""
    tokenization_s: float
    queue_s: float
    """From tokenized to the first token on the device."""
    inference_s: float
    """From then until the last pair was scored, with what other requests had of the device meanwhile."""
    levels: tuple[LevelScores, ...] = ()
    """Of a cascade. Then scores and raw are 1 / rank, tokens and seconds those of all levels, and the rest is
    of the last level that saw the pair."""


@dataclass(frozen=True)
class Refused:
    """Why there are no scores."""

    kind: Literal["overloaded", "too_long", "unscorable", "unavailable", "timeout"]
    message: str
    retry_after_s: float | None = None
    pair: int | None = None
    """The first one of the work that can't be scored, where it is for a pair."""
    field: str | None = None
    """Of the work's limits, where it is for one. The message names it."""


@dataclass(frozen=True)
class ModelInfo:
    """A model as it is served."""

    model: str
    fingerprint: str
    family: str
    architecture: str
    device: str
    dtype: str
    max_length: int
    max_batch_tokens: int
    cutoff_layers: tuple[int, ...]
    """Empty where the model has one score."""
    truncates: bool
    """Whether a pair that is too long is cut, where the request says nothing."""
    normalizes: bool
    """Whether its scores are logits that a sigmoid makes probabilities of."""
