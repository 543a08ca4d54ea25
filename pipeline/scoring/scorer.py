"""The scorer: pairs in, one score each out. The offline job and the endpoint run this same class."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError, ScoringError
from pipeline.scoring.checkpoint import find_adapter, find_checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.device import Forwarded
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.family import Encoder, Model, load_family


@dataclass(frozen=True)
class RankedPassage:
    rank: int
    """1-based."""
    score: float
    index: int
    """Position among the passages handed in."""
    passage: str


class Scorer:
    """Scores pairs with one checkpoint.

    Making one finds the checkpoint (a hub's is downloaded) and its family, and checks the options. The
    tokenizer loads with the first `encode`, the weights with the first `forward`, so that a process which
    only encodes holds no weights; `score` does both.
    """

    def __init__(self, config: ScorerConfig) -> None:
        """Raises ModelError or ConfigError where the checkpoint or an option does not fit."""
        self.config = config
        self.checkpoint = find_checkpoint(config)
        self.adapter = find_adapter(config)
        self._family = load_family(self.checkpoint, config)
        self.checkpoint.check_weights()

    @property
    def fingerprint(self) -> str:
        """Of the weights and all else that is loaded, an adapter included."""
        found = self.checkpoint.fingerprint
        return found if self.adapter is None else f"{found} + {self.adapter.fingerprint}"

    @cached_property
    def encoder(self) -> Encoder:
        return self._family.load_encoder(self.checkpoint, self.config)

    @cached_property
    def model(self) -> Model:
        return self._family.load_model(self.checkpoint, self.config)

    def encode(self, pairs: Sequence[tuple[str, str]]) -> EncodedPairs:
        """Tokenize (query, passage) pairs. Raises ScoringError for what is not text or does not fit."""
        for index, pair in enumerate(pairs):
            if not _is_pair_of_texts(pair):
                raise ScoringError(index, f"not a (query, passage) pair of texts: {pair!r:.80}")
        return self.encoder.encode([query for query, _ in pairs], [passage for _, passage in pairs])

    def forward(self, encoded: EncodedPairs) -> Forwarded:
        """Score encoded pairs. Raises ScoringError for a score that is not finite."""
        result = self.model.forward(encoded)
        broken = np.argwhere(~np.isfinite(result.scores))
        if broken.size:
            worst = result.scores[tuple(broken[0])]
            raise ScoringError(int(broken[0][0]), f"its score is {worst}, which ranks nowhere")
        return result

    def score(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
        """One finite float32 score a (query, passage) pair, in input order: (pairs,). Higher is better.

        Several cutoff layers give one column each: (pairs, cutoffs).
        """
        return self.forward(self.encode(pairs)).scores

    def rank(self, query: str, passages: Sequence[str], top_k: int | None = None) -> list[RankedPassage]:
        """The passages, best first; equal scores keep the order they came in."""
        if top_k is not None and top_k < 1:
            raise ConfigError(f"top_k {top_k}: give 1 or more, or None for all")
        scores = self.score([(query, passage) for passage in passages])
        if scores.ndim > 1:
            raise ConfigError("scorer.cutoff_layers: passages rank by one score; ask for one layer")
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [
            RankedPassage(rank, float(scores[index]), int(index), passages[index])
            for rank, index in enumerate(order, start=1)
        ]


def _is_pair_of_texts(pair: object) -> bool:
    return isinstance(pair, tuple | list) and len(pair) == 2 and all(map(_is_text, pair))


def _is_text(value: object) -> bool:
    """Lone surrogates are no text: no tokenizer takes them."""
    return isinstance(value, str) and value.encode(errors="replace").decode() == value
