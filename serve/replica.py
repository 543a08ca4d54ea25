"""One model on one device, scoring the requests that reach it."""

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pipeline.errors import ConfigError, ModelError, ScoringError, fields_under
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.batching import IndexArray
from pipeline.scoring.copies import distinct_pairs
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.lean_imports import lean_imports
from pipeline.scoring.results import sigmoid
from serve.batcher import Batched, Batcher, BatchReport, OverloadedError
from serve.config import is_of_a_hub
from serve.work import ModelInfo, Refused, Scores, Work

_CHARACTERS_A_TOKEN = 4
_TURN_CHARACTERS = 100_000
"""Of a request's texts, so many are tokenized at once: some 0.1 s. Then others that wait have their turn."""
_WARM_UP_WORDS = 64


class _Encoded(NamedTuple):
    """The pairs of a request."""

    pairs: EncodedPairs
    spans: list[tuple[int, int]] | None
    distinct: EncodedPairs
    """Each of equal pairs once. A large request goes to the device in chunks, and its equal pairs must not
    get scores that differ in the last bit."""
    places: IndexArray
    """(pairs,): of each pair its place in `distinct`."""


def check(config: ScorerConfig) -> None:
    """Raises ConfigError or ModelError where model and options don't fit, as far as it shows without weights.

    Of a hub's checkpoint nothing is checked.
    """
    if not is_of_a_hub(config):
        _ = Scorer(config.model_copy(update={"normalize": False})).encoder


class Replica:
    """Make one, then await `start` on the event loop that it shall live on."""

    def __init__(
        self, config: ScorerConfig, max_wait_s: float, on_batch: Callable[[BatchReport], None]
    ) -> None:
        """Raises ConfigError or ModelError where model and options don't fit, before weights are loaded."""
        # The sigmoid is each request's choice.
        with fields_under("scorer"), lean_imports():
            self._scorer = Scorer(config.model_copy(update={"normalize": False}))
        self._max_wait_s = max_wait_s
        self._on_batch = on_batch
        self._encoding = ThreadPoolExecutor(1, "encoding")

    async def start(self) -> None:
        """Load the weights, and score a batch: the first one is slow, and its speed is the first estimate."""
        loop = asyncio.get_running_loop()
        with fields_under("scorer"):
            await loop.run_in_executor(self._encoding, self._load)
        model = self._scorer.model
        self._batcher = Batcher(
            self._scorer.forward, lambda: model.max_batch_tokens, self._max_wait_s, self._on_batch
        )
        passages = -(-model.max_batch_tokens // _WARM_UP_WORDS)
        # Equal sequences go through the model once. Letters tell these apart to any tokenizer, digits don't.
        marks = [" ".join(f"{number:b}").translate({48: "a", 49: "b"}) for number in range(passages)]
        words = [f"{mark} " + "word " * _WARM_UP_WORDS for mark in marks]
        for _ in range(2):
            await self.score(Work(["warm up"] * passages, words))

    def _load(self) -> None:
        with lean_imports():
            _ = self._scorer.encoder, self._scorer.model

    async def score(self, work: Work) -> Scores | Refused:
        """Of one pair or more. Cancelled or past its deadline, what is not begun is dropped."""
        if work.timeout_s is not None and self._batcher.wait_s > work.timeout_s:
            return Refused("timeout", "the queue is longer than the request may wait")
        try:
            # The API cancels what is late. But it may have died, or what it says may be late itself.
            async with asyncio.timeout(work.timeout_s):
                return await self._in_time(work)
        except TimeoutError:
            return Refused("timeout", "not done within the time that it may take")

    async def _in_time(self, work: Work) -> Scores | Refused:
        characters = sum(map(len, work.queries)) + sum(map(len, work.passages))
        try:
            with self._batcher.announce(characters // _CHARACTERS_A_TOKEN, work.accepted):
                begin = time.perf_counter()
                encoded = await self._encoded(work)
                tokenization_s = time.perf_counter() - begin
        except OverloadedError as error:
            return Refused("overloaded", str(error), error.retry_after_s)
        except ScoringError as error:
            return Refused("too_long", str(error), pair=error.index)
        except (ConfigError, ModelError) as error:  # where the model lies is nothing for clients
            name = re.escape(self._scorer.checkpoint.name)
            told = re.sub(rf"(?<!\S){name}(?=[\s:;,]|$)", "the model", str(error))
            return Refused("too_long", told, field=error.field)
        try:
            batched = await self._batcher.score(encoded.distinct)
        except ScoringError as error:
            first = int(np.flatnonzero(encoded.places == error.index)[0])
            return Refused("unscorable", str(ScoringError(first, error.reason)), pair=first)
        return self._scores(work, encoded, batched, tokenization_s)

    def info(self) -> ModelInfo:
        scorer = self._scorer
        return ModelInfo(
            model=scorer.config.model,
            fingerprint=scorer.fingerprint,
            family=scorer.family,
            architecture=scorer.checkpoint.architecture,
            device=str(scorer.config.device),
            dtype=scorer.config.dtype,
            max_length=scorer.encoder.max_length,
            max_batch_tokens=scorer.model.max_batch_tokens,
            cutoff_layers=scorer.config.cutoff_layers or (),
            truncates=scorer.config.truncation != "error",
            normalizes=scorer.normalizes,
        )

    @property
    def waiting_s(self) -> float:
        """Seconds in which the device will score all that waits."""
        return self._batcher.waiting_s

    def check(self) -> None:
        """Raises where this replica will score nothing any more."""
        self._batcher.check()

    async def close(self) -> None:
        await self._batcher.close()
        self._encoding.shutdown()

    async def _encoded(self, work: Work) -> _Encoded:
        """In turns with the requests beside it: one thread tokenizes."""
        loop = asyncio.get_running_loop()
        turns = [
            await loop.run_in_executor(self._encoding, self._encode, work, turn) for turn in _turns(work)
        ]
        return await loop.run_in_executor(self._encoding, _joined, turns)

    def _encode(self, work: Work, turn: slice) -> tuple[EncodedPairs, list[tuple[int, int]] | None]:
        texts = list(zip(work.queries[turn], work.passages[turn], strict=True))
        try:
            pairs = self._scorer.encode(texts, work.limits)
        except ScoringError as error:
            raise ScoringError(turn.start + error.index, error.reason) from error
        return pairs, self._scorer.spans_read(texts, pairs) if work.spans else None

    def _scores(self, work: Work, encoded: _Encoded, batched: Batched, tokenization_s: float) -> Scores:
        scores, windows = batched.scores[encoded.places], batched.windows[encoded.places]
        if scores.ndim > 1:
            layers = self._scorer.config.cutoff_layers or ()
            column = -1 if work.cutoff_layer is None else layers.index(work.cutoff_layer)
            scores, windows = scores[:, column], windows[:, column]
        raw = np.ascontiguousarray(scores)
        return Scores(
            scores=sigmoid(raw) if work.normalize and self._scorer.normalizes else raw,
            raw=raw,
            normalizes=self._scorer.normalizes,
            tokens=encoded.pairs.tokens,
            query_cut=encoded.pairs.pairs["query_cut"].to_numpy(),
            passage_cut=encoded.pairs.pairs["passage_cut"].to_numpy(),
            windows=windows,
            spans=encoded.spans,
            tokenization_s=tokenization_s,
            queue_s=batched.queue_s,
            inference_s=batched.inference_s,
        )


def _turns(work: Work) -> Iterator[slice]:
    """Consecutive pairs of _TURN_CHARACTERS together, or one that has more. A turn counts a query once, and
    has room for as much beside a long one, which is tokenized in every turn.
    """
    first = characters = longest = 0
    queries = set[str]()
    for at, (query, passage) in enumerate(zip(work.queries, work.passages, strict=True)):
        more = len(passage) + (0 if query in queries else len(query))
        longest = max(longest, len(query))
        if at > first and characters + more > max(_TURN_CHARACTERS, 2 * longest):
            yield slice(first, at)
            first, characters, more, queries, longest = at, 0, len(query) + len(passage), set(), len(query)
        characters += more
        queries.add(query)
    yield slice(first, len(work.passages))


def _joined(turns: list[tuple[EncodedPairs, list[tuple[int, int]] | None]]) -> _Encoded:
    pairs = EncodedPairs.concat([encoded for encoded, _ in turns])
    spans = [span for _, read in turns for span in read or ()]
    return _Encoded(pairs, spans or None, *distinct_pairs(pairs))
