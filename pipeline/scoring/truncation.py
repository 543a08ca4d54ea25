"""Pure: how a pair is made to fit the model, counted in tokens, and how a long passage becomes windows."""

from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from pipeline.errors import ConfigError, ScoringError
from pipeline.scoring.config import ScorerConfig


class Lengths(BaseModel):
    """To how many tokens a scorer cuts."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    max_length: int
    """As the option counts them, which is null where the checkpoint decided."""
    query_max_length: int | None = None
    """The option; null where it is not set."""
    passage_max_length: int | None = None
    """Likewise."""
    positions: int | None = None
    """Tokens that the model has positions for; null where nothing bounds them."""

    @classmethod
    def of(cls, config: ScorerConfig, max_length: int, positions: int | None) -> Self:
        return cls(
            max_length=max_length,
            query_max_length=config.query_max_length,
            passage_max_length=config.passage_max_length,
            positions=positions,
        )

    def __str__(self) -> str:
        set_too = {"query_max_length": self.query_max_length, "passage_max_length": self.passage_max_length}
        told = [f"{name} {value}" for name, value in set_too.items() if value is not None]
        return " or ".join([*told, f"max_length {self.max_length}"])

    @property
    def with_positions(self) -> str:
        return str(self) if self.positions is None else f"{self}, of the model's {self.positions} positions"

    @property
    def may_grow(self) -> bool:
        """Whether an option can be set higher, so that less is cut."""
        own = (self.query_max_length, self.passage_max_length)
        return own != (None, None) or self.positions is None or self.max_length < self.positions


class Fit(NamedTuple):
    """What is read of one pair."""

    query: tuple[int, int]
    """The query: its first token that is read and the one past the last."""
    windows: list[tuple[int, int]]
    """The passage: each window's first token and the one past its last. One window where it is not parted."""
    query_cut: int
    passage_cut: int
    """Tokens that no window reads."""


class Truncation:
    """The options `truncation`, `truncation_side`, the texts' own max_lengths, and `long_passages`."""

    def __init__(self, config: ScorerConfig, max_length: int) -> None:
        self._strategy = config.truncation
        self._long_passages = config.long_passages
        self._max_length = max_length
        self._query_max_length = config.query_max_length
        self._passage_max_length = config.passage_max_length
        self._left = config.truncation_side == "left"

    def fit(self, index: int, query: int, passage: int, room: int, separator: int = 0) -> Fit:
        """Fit a query and a passage of so many tokens into `room` tokens that the two share.

        separator: tokens before the passage that flag_embedding cuts along with it. Raises ScoringError
        naming pair `index` where truncation is `error`, or where windows of the passage have no room.
        """
        by_default = self._max_length * 3 // 4 if self._strategy == "flag_embedding" else query
        query_max = self._query_max_length or by_default
        if self._long_passages is not None:
            kept = min(query, query_max)
            return self._checked(index, query, passage, kept, self.windows(index, passage, room - kept))
        whole = min(passage, self._passage_max_length or passage)
        if self._strategy == "flag_embedding":
            kept, rest = min(query, query_max), min(whole, self._max_length)
            excess = kept + rest - room
            # Where cutting would take all of the passage and its separator, the reference cuts nothing.
            if 0 < excess < rest + separator:
                rest = max(0, rest - excess)
        else:
            kept, rest = _longest_first(min(query, query_max), whole, max(room, 0))
        return self._checked(index, query, passage, kept, [self._span(passage, rest)])

    def fit_apart(self, index: int, query: int, passage: int, query_room: int, passage_room: int) -> Fit:
        """The same where each text has room of its own, or the passage what the query leaves."""
        kept = min(query, query_room)
        return self._checked(index, query, passage, kept, self.windows(index, passage, passage_room))

    def windows(self, index: int, passage: int, room: int) -> list[tuple[int, int]]:
        """The windows of a passage; without `long_passages` one, as long as fits."""
        options = self._long_passages
        whole = min(passage, self._passage_max_length or passage)
        if options is None:
            return [self._span(passage, max(0, min(whole, room)))]
        if room < 1:
            raise ScoringError(
                index, "there is no room for a window of the passage: raise max_length or shorten the query"
            )
        window = min(options.window or room, room)
        first, _ = self._span(passage, whole)
        spans = _spans(first, first + whole, window, min(options.stride or window, window))
        return [next(spans)] if options.strategy == "first" else list(spans)

    def _span(self, length: int, kept: int) -> tuple[int, int]:
        """The tokens kept of a text: its first, or with truncation_side left its last."""
        return (length - kept, length) if self._left else (0, kept)

    def _checked(
        self, index: int, query: int, passage: int, kept: int, windows: list[tuple[int, int]]
    ) -> Fit:
        passage_cut = passage - windows[-1][1] + windows[0][0]
        fit = Fit(self._span(query, kept), windows, query - kept, passage_cut)
        if self._strategy == "error" and (fit.query_cut or fit.passage_cut):
            raise ScoringError(
                index,
                f"query of {query} and passage of {passage} tokens don't fit: {fit.query_cut} and"
                f" {fit.passage_cut} would be cut. Raise max_length, or allow truncation",
            )
        return fit


def best_windows(
    scores: npt.NDArray[np.float32], counts: npt.NDArray[np.int32], strategy: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Window scores, (windows,) or (windows, cutoffs), to pair scores, and the number of the best windows.

    counts: windows of each pair, 1 or more, the windows of a pair together. Equal windows: the first.
    """
    starts = np.cumsum(counts) - counts
    if not len(counts):
        return scores, np.zeros(scores.shape, np.int32)
    best = np.maximum.reduceat(scores, starts)
    number = np.arange(len(scores)) - np.repeat(starts, counts)
    number = number.reshape(-1, *[1] * (scores.ndim - 1))
    candidates = np.where(scores == np.repeat(best, counts, axis=0), number, len(scores))
    winners = np.minimum.reduceat(candidates, starts).astype(np.int32)
    if strategy != "mean":
        return best, winners
    total = np.add.reduceat(scores, starts, dtype=np.float64)
    mean: npt.NDArray[np.float32] = (total / counts.reshape(-1, *[1] * (scores.ndim - 1))).astype(np.float32)
    return mean, winners


def _spans(start: int, stop: int, window: int, stride: int) -> Iterator[tuple[int, int]]:
    """Windows from the start on, until one reaches the end."""
    while start + window < stop:
        yield start, start + window
        start += stride
    yield start, stop


def _longest_first(query: int, passage: int, room: int) -> tuple[int, int]:
    """The lengths to which tokenizers' LongestFirst cuts (truncate_encodings in utils/truncation.rs)."""
    if query + passage <= room:
        return query, passage
    short, long = min(query, passage), max(query, passage)
    long = short if short > room else max(short, room - short)
    if short + long > room:
        short, long = room // 2, room // 2 + room % 2
    return (long, short) if query > passage else (short, long)


def check_room(room: int, least: int, max_length: int) -> None:
    """Raises ConfigError where the texts have fewer than `least` tokens: pairs would all have one score."""
    if room < least:
        raise ConfigError(
            f"max_length {max_length}: leaves query and passage no room beside the model's own tokens",
            field="max_length",
        )


def check_positions(index: int, length: int, positions: int | None) -> None:
    """Raises ScoringError for a pair that was left longer than the model has positions for."""
    if positions is not None and length > positions:
        raise ScoringError(
            index,
            f"{length} tokens for a model of {positions} positions: the query leaves the passage no room; set"
            " query_max_length or max_length lower",
        )


def refuse_longest_first(config: ScorerConfig, why: str) -> None:
    """For families in which query and passage are not cut against each other."""
    if config.truncation == "longest_first":
        raise ConfigError(
            f"truncation longest_first: {why}; take flag_embedding or error", field="truncation"
        )
