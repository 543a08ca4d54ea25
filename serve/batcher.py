"""Requests to batches: what comes in while the device works waits, and makes up the next batch."""

import asyncio
import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline import log
from pipeline.errors import ScoringError
from pipeline.scoring.copies import distinct_pairs
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.results import Scored
from pipeline.scoring.wanted import NotWantedError, while_wanted
from serve.fair_queue import Chunk, DistinctTokens, FairQueue
from serve.speed import Speed


class OverloadedError(Exception):
    """A new request would wait longer than is allowed."""

    def __init__(self, wait_s: float, max_wait_s: float) -> None:
        super().__init__(f"a new request would wait {wait_s:.1f} s, and at most {max_wait_s:g} s are allowed")
        self.retry_after_s = max(1.0, math.ceil(wait_s - max_wait_s))


class Batched(NamedTuple):
    """The scores of one request, and what it waited for."""

    scores: npt.NDArray[np.float32]
    """(pairs,), or (pairs, cutoffs)."""
    windows: npt.NDArray[np.int32]
    """The same shape."""
    queue_s: float
    inference_s: float


class BatchReport(NamedTuple):
    """One trip to the device."""

    requests: int
    pairs: int
    tokens: int
    padded_tokens: int
    device_s: float


_GATHERED_BATCHES = 2
"""So many go to the device at once: they are cut with less waste than one. More make requests wait longer."""
_CHUNK_TOKENS = 4096
"""No less than this, so that a usual request is one chunk."""


@dataclass(eq=False)
class _Request:
    encoded: EncodedPairs
    done: asyncio.Future[None]
    arrived_at: float
    begun_at: float = 0.0
    left: int = field(init=False)
    scores: npt.NDArray[np.float32] | None = None
    windows: npt.NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        self.left = len(self.encoded)

    def fill(self, pairs: npt.NDArray[np.int64], scored: Scored, rows: slice) -> None:
        """Keep the scores of some pairs; the last ones end the wait."""
        scores, windows = scored.scores[rows], scored.windows[rows]
        if self.scores is None or self.windows is None:
            self.scores = np.empty((len(self.encoded), *scores.shape[1:]), np.float32)
            self.windows = np.empty(self.scores.shape, np.int32)
        self.scores[pairs], self.windows[pairs] = scores, windows
        self.left -= len(pairs)
        if not self.left and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Batcher:
    """One device's queue. All but the device's own work happens on the event loop that made it."""

    def __init__(
        self,
        forward: Callable[[EncodedPairs], Scored],
        max_batch_tokens: Callable[[], int],
        max_wait_s: float,
        on_batch: Callable[[BatchReport], None],
    ) -> None:
        """max_batch_tokens: asked before each batch, since a budget shrinks where memory runs out."""
        self._forward = forward
        self._max_batch_tokens = max_batch_tokens
        self._max_wait_s = max_wait_s
        self._on_batch = on_batch
        self._chunk_tokens = max(_CHUNK_TOKENS, max_batch_tokens())
        self._queue: FairQueue[_Request] = FairQueue(self._chunk_tokens)
        self._announced: DistinctTokens[object] = DistinctTokens(self._chunk_tokens)
        self._on_device = 0
        self._speed = Speed()
        self._trip_began_at = 0.0
        self._broken: Exception | None = None
        self._wake = asyncio.Event()
        self._device = ThreadPoolExecutor(1, "device")
        self._loop = asyncio.create_task(self._run())

    @property
    def waiting_tokens(self) -> float:
        """Announced, waiting or on the device."""
        return self._announced.total + self._queue.tokens.total + self._left_on_device

    @property
    def waiting_s(self) -> float:
        """How long the device will take for these, as fast as it has been."""
        return self.waiting_tokens / self._speed.a_second

    @property
    def wait_s(self) -> float:
        """How long a request that comes now will wait for the device, which is as fast as it has been."""
        ahead = self._announced.ahead + self._queue.tokens.ahead + self._left_on_device
        return ahead / self._speed.a_second

    @property
    def _left_on_device(self) -> float:
        """Tokens that the device has still to read, if it is as fast as it has been."""
        if not self._on_device or math.isinf(self._speed.a_second):
            return self._on_device
        read = (time.perf_counter() - self._trip_began_at) * self._speed.a_second
        return max(0.0, self._on_device - read)

    def check_wait(self, before_s: float = 0.0) -> None:
        """Raises OverloadedError where a request that comes now would wait too long.

        before_s: how long it will be before it can be scored, while the device works on others.
        """
        wait_s = max(self.wait_s, before_s)
        if wait_s > self._max_wait_s:
            raise OverloadedError(wait_s, self._max_wait_s)

    @contextmanager
    def announce(self, tokens: Mapping[Hashable, int]) -> Iterator[None]:
        """Count pairs as waiting while their tokens are counted exactly: by key, how many they may be.

        Those that equal one which waits don't count.
        """
        request, keys = object(), [key for key in tokens if key not in self._queue.tokens]
        for key in keys:
            self._announced.add(request, key, tokens[key])
        try:
            yield
        finally:
            for key in keys:
                self._announced.remove(request, key)

    async def score(self, encoded: EncodedPairs, keys: Sequence[Hashable]) -> Batched:
        """Scores of one pair or more, no two of them equal. keys: (pairs,), by which pairs of several
        requests are equal.

        Cancelled, its pairs that wait are dropped, and at the end of a CPU's batch those on the device, too,
        if it has none of another request. Raises ScoringError for a pair of this request; what else the
        device raises is as it is.
        """
        request = _Request(encoded, asyncio.get_running_loop().create_future(), time.perf_counter())
        self._queue.add(request, encoded.tokens, keys)
        self._wake.set()
        try:
            await request.done
        finally:
            self._queue.remove(request)
        assert request.scores is not None
        assert request.windows is not None
        return Batched(
            request.scores,
            request.windows,
            queue_s=request.begun_at - request.arrived_at,
            inference_s=time.perf_counter() - request.begun_at,
        )

    def check(self) -> None:
        """Raises where nothing will be scored any more."""
        if self._broken is not None:
            raise RuntimeError("the device failed") from self._broken
        if self._loop.done():
            raise RuntimeError("the batcher's loop has ended")

    async def close(self) -> None:
        """Stop; who still waits is left waiting."""
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)
        self._device.shutdown()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            chunks = self._queue.take(_GATHERED_BATCHES * self._max_batch_tokens())
            if chunks:
                await self._score(chunks)
            else:
                self._wake.clear()

    async def _score(self, chunks: list[Chunk[_Request]]) -> None:
        begin = self._trip_began_at = time.perf_counter()
        for chunk in chunks:
            chunk.request.begun_at = chunk.request.begun_at or begin
        parts = [chunk.request.encoded.take(chunk.pairs) for chunk in chunks]
        try:
            pairs = EncodedPairs.concat(parts)
            # Equal pairs of several requests go through the model once. This is in the queue's unit:
            # `Scored.tokens` has once what different pairs share.
            once = pairs if len(chunks) == 1 else distinct_pairs(pairs)[0]
            tokens = self._on_device = int(once.tokens.sum())
            scored = await asyncio.get_running_loop().run_in_executor(
                self._device, self._forward_wanted, pairs, chunks
            )
        except NotWantedError:
            return
        except ScoringError as error:
            await self._score_apart(chunks, error)
            return
        except Exception as error:
            # Not of one pair: the device itself is in doubt. Who waits shall go elsewhere.
            self._broken = error
            log.warning("device failed", error=type(error).__name__)
            for chunk in chunks:
                chunk.request.fail(error)
            return
        finally:
            self._on_device = 0
        device_s = time.perf_counter() - begin
        self._speed.note(max(1, tokens), device_s, self._max_batch_tokens())
        self._deliver(chunks, scored)
        requests = len({id(chunk.request) for chunk in chunks})
        self._on_batch(BatchReport(requests, len(pairs), scored.tokens, scored.padded_tokens, device_s))

    def _forward_wanted(self, pairs: EncodedPairs, chunks: list[Chunk[_Request]]) -> Scored:
        """In the device's thread. Raises NotWantedError where all whose pairs these are have left."""
        with while_wanted(lambda: not all(chunk.request.done.done() for chunk in chunks)):
            return self._forward(pairs)

    async def _score_apart(self, chunks: list[Chunk[_Request]], error: ScoringError) -> None:
        """A pair can't be scored: no other request shall suffer for it."""
        if len(chunks) > 1:
            for chunk in chunks:
                await self._score([chunk])
            return
        pair = int(chunks[0].pairs[error.index])
        chunks[0].request.fail(ScoringError(pair, error.reason))
        self._queue.remove(chunks[0].request)

    def _deliver(self, chunks: list[Chunk[_Request]], scored: Scored) -> None:
        first = 0
        for chunk in chunks:
            rows = slice(first, first + len(chunk.pairs))
            chunk.request.fill(chunk.pairs, scored, rows)
            first = rows.stop
