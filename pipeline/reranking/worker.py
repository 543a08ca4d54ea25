"""The processes that work on shards, and shards that kill them. Knows no Ray.

Each try is counted before the work begins, so that a shard which no process survives is given up instead of
tried for ever.
"""

import os
from contextlib import ExitStack
from threading import Lock

from pipeline.errors import RayrankError, ScoringError
from pipeline.reranking.calibration import at_hand
from pipeline.reranking.cascade import Level, named
from pipeline.reranking.commit import commit
from pipeline.reranking.shard import (
    EncodedShard,
    Job,
    OpenShard,
    ScoredShard,
    encode,
    hand_on,
    name_pair,
    score,
)
from pipeline.scoring import Scorer
from pipeline.scoring.dtype import check_native
from pipeline.scoring.lean_imports import lean_imports
from pipeline.tables.input.shards import Shard
from pipeline.tables.outage import wait_out
from pipeline.tables.output.attempts import MAX_ATTEMPTS, Attempts, Quarantined, loads
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.markers import ShardReport

Outcome = ShardReport | Quarantined
"""What became of a shard."""


def encode_once(shard: Shard | OpenShard, job: Job) -> EncodedShard | Quarantined:
    """The same as `encode`, but a shard of which processes have died in this step is given up."""
    wait_out(job.config.max_outage_s)
    number, unread = (0, shard) if isinstance(shard, Shard) else (len(shard.counts), shard.shard)
    stage = f"{job.config.cascade[number].under}encode"
    attempts = Attempts(Directory(job.config.output.path), unread, stage)
    made = attempts.made()
    if made >= MAX_ATTEMPTS:
        return Quarantined.of(unread, stage)
    with attempts.counted(made):
        return encode(shard, job)


class Worker:
    """One replica of a level's scorer, its weights loaded before the first shard.

    It scores a shard, and hands it on to the next level or, at the last one, commits it. Called by two
    threads at once, it writes one shard while it scores the next.
    """

    def __init__(self, job: Job, level: int = 0, actor: str = "here") -> None:
        """actor: as `loads` takes it."""
        self._job = job
        self._level: Level = job.config.cascade[level]
        self._is_last = level == len(job.config.cascade) - 1
        wait_out(job.config.max_outage_s)
        self._scoring, self._writing = Lock(), Lock()
        threads = max(1, int(self._level.actors.num_cpus))
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
        # What fails here would reach the driver as the text of a dead actor; in a call it arrives as itself.
        self._failure: RayrankError | None = None
        output, model = Directory(job.config.output.path), self._level.scorer.model
        try:
            with (
                loads(output, f"{self._level.under}{actor}", model),
                named(self._level),
                at_hand(self._level.scorer) as config,
                lean_imports(),
            ):
                if level in job.auto:
                    check_native(config)
                self._scorer = Scorer(config)
                _ = self._scorer.model
        except RayrankError as error:
            self._failure = error

    def __call__(self, shard: Shard | OpenShard | EncodedShard) -> Outcome | OpenShard:
        """What became of the shard, which is encoded first where it comes without that."""
        if self._failure is not None:
            raise self._failure
        with ExitStack() as trying:
            with self._scoring:
                encoded = shard if isinstance(shard, EncodedShard) else encode_once(shard, self._job)
                if isinstance(encoded, Quarantined):
                    return encoded
                stage = f"{self._level.under}score"
                attempts = Attempts(Directory(self._job.config.output.path), encoded.shard, stage)
                made = attempts.made()
                if made >= MAX_ATTEMPTS:
                    return Quarantined.of(encoded.shard, stage)
                trying.enter_context(attempts.counted(made))
                if made:
                    # A process died of this shard, or of the one beside it: nobody is beside it now.
                    trying.enter_context(self._writing)
                    return self._end(self._score(encoded))
                scored = self._score(encoded)
            with self._writing:
                return self._end(scored)

    def _score(self, encoded: EncodedShard) -> ScoredShard:
        try:
            return score(encoded, self._scorer)
        except ScoringError as error:
            raise name_pair(error, encoded.open, self._level, encoded.new) from error

    def _end(self, scored: ScoredShard) -> Outcome | OpenShard:
        ranked = hand_on(scored, self._job)
        return commit(ranked, self._job) if self._is_last else ranked
