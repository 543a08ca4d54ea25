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
from serve.speed import Speed
from serve.work import ModelInfo, Refused, Scores, Work

_CHARACTERS_A_TOKEN = 4
_TURN_CHARACTERS = 100_000
"""Of a request's texts, so many are tokenized at once: some 0.1 s. Then others that wait have their turn."""
_WARM_UP_WORDS = 64


class _Turn(NamedTuple):
    """Some pairs of a request, tokenized."""

    pairs: EncodedPairs
    spans: list[tuple[int, int]] | None


class _Encoded(NamedTuple):
    """The pairs of a request."""

    pairs: EncodedPairs
    spans: list[tuple[int, int]] | None
    distinct: EncodedPairs
    """Each of equal pairs once. A large request goes to the device in chunks, and its equal pairs must not
    get scores that differ in the last bit."""
    places: IndexArray
    """(pairs,): of each pair its place in `distinct`."""
    firsts: IndexArray
    """(distinct pairs,): of each the first of the pairs that equal it."""


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
        self._characters = 0
        """Of the turns that are tokenized or wait for it. A request has one there at a time, so these go
        before the first turn of one that comes now."""
        self._characters_speed = Speed()

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
            self._characters_speed = Speed()
            await self.score(Work(["warm up"] * passages, words))

    def _load(self) -> None:
        with lean_imports():
            _ = self._scorer.encoder, self._scorer.model

    async def score(self, work: Work) -> Scores | Refused:
        """Of one pair or more. Cancelled or past its deadline, what is not begun is dropped."""
        if not work.accepted and (full := self.full()) is not None:
            return full
        if work.timeout_s is not None and max(self._batcher.wait_s, self._tokenizer_s) > work.timeout_s:
            return Refused("timeout", "the queue is longer than the request may wait")
        try:
            # The API cancels what is late. But it may have died, or what it says may be late itself.
            async with asyncio.timeout(work.timeout_s):
                return await self._in_time(work)
        except TimeoutError:
            return Refused("timeout", "not done within the time that it may take")

    async def _in_time(self, work: Work) -> Scores | Refused:
        keys = work.keys
        try:
            with self._batcher.announce(dict(zip(keys, self._tokens_guessed(work), strict=True))):
                begin = time.perf_counter()
                encoded = await self._encoded(work)
                tokenization_s = time.perf_counter() - begin
        except ScoringError as error:
            return Refused("too_long", str(error), pair=error.index)
        except (ConfigError, ModelError) as error:  # where the model lies is nothing for clients
            name = re.escape(self._scorer.checkpoint.name)
            told = re.sub(rf"(?<!\S){name}(?=[\s:;,]|$)", "the model", str(error))
            return Refused("too_long", told, field=error.field)
        try:
            batched = await self._batcher.score(encoded.distinct, [keys[at] for at in encoded.firsts])
        except ScoringError as error:
            first = int(encoded.firsts[error.index])
            return Refused("unscorable", str(ScoringError(first, error.reason)), pair=first)
        return self._scores(work, encoded, batched, tokenization_s)

    def full(self) -> Refused | None:
        """Why a request that comes now would be refused, whatever it is; None where it would not."""
        try:
            self._batcher.check_wait(self._tokenizer_s)
        except OverloadedError as error:
            return Refused("overloaded", str(error), error.retry_after_s)
        return None

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
        """Seconds in which the device will score all that waits, or longer where the tokenizer is behind."""
        return max(self._batcher.waiting_s, self._tokenizer_s)

    def check(self) -> None:
        """Raises where this replica will score nothing any more."""
        self._batcher.check()

    async def close(self) -> None:
        await self._batcher.close()
        self._encoding.shutdown()

    @property
    def _tokenizer_s(self) -> float:
        """How long a request that comes now will wait for the tokenizer."""
        return self._characters / self._characters_speed.a_second

    def _tokens_guessed(self, work: Work) -> list[int]:
        """Of each pair. Of texts that are cut, no more than the model reads: most of a long one is tokenized
        in vain.
        """
        config, encoder = work.limits.applied_to(self._scorer.config), self._scorer.encoder
        lengths = zip(map(len, work.queries), map(len, work.passages), strict=True)
        if config.long_passages is not None:
            return [sum(pair) // _CHARACTERS_A_TOKEN for pair in lengths]
        longest = _CHARACTERS_A_TOKEN * min(work.limits.max_length or encoder.max_length, encoder.max_length)
        passage = min(longest, _CHARACTERS_A_TOKEN * (config.passage_max_length or encoder.max_length))
        pair = 2 * longest if self._scorer.embeds else longest
        read = (min(pair, min(longest, ours) + min(passage, theirs)) for ours, theirs in lengths)
        return [characters // _CHARACTERS_A_TOKEN for characters in read]

    async def _encoded(self, work: Work) -> _Encoded:
        """In turns with the requests beside it: one thread tokenizes."""
        loop = asyncio.get_running_loop()
        turns = [await self._encoded_turn(work, turn) for turn in _turns(work)]
        return await loop.run_in_executor(self._encoding, _joined, turns)

    async def _encoded_turn(self, work: Work, turn: slice) -> _Turn:
        characters = sum(map(len, {*work.queries[turn]})) + sum(map(len, work.passages[turn]))
        self._characters += characters
        try:
            loop = asyncio.get_running_loop()
            encoded, seconds = await loop.run_in_executor(self._encoding, self._encode, work, turn)
        finally:
            self._characters -= characters
        self._characters_speed.note(characters, seconds, _TURN_CHARACTERS)
        return encoded

    def _encode(self, work: Work, turn: slice) -> tuple[_Turn, float]:
        """And the seconds that it took."""
        begin = time.perf_counter()
        texts = list(zip(work.queries[turn], work.passages[turn], strict=True))
        try:
            pairs = self._scorer.encode(texts, work.limits)
        except ScoringError as error:
            raise ScoringError(turn.start + error.index, error.reason) from error
        spans = self._scorer.spans_read(texts, pairs) if work.spans else None
        return _Turn(pairs, spans), time.perf_counter() - begin

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


def _joined(turns: list[_Turn]) -> _Encoded:
    pairs = EncodedPairs.concat([turn.pairs for turn in turns])
    spans = [span for turn in turns for span in turn.spans or ()]
    distinct, places = distinct_pairs(pairs)
    return _Encoded(pairs, spans or None, distinct, places, np.unique(places, return_index=True)[1])
