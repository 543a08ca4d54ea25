"""The processes that work on shards, and shards that kill them. Knows no Ray.

Each try is counted before the work begins, so that a shard which no process survives is given up instead of
tried for ever.
"""

import os
from contextlib import ExitStack
from threading import Lock

from pipeline.errors import RayrankError, fields_under
from pipeline.reranking.shard import EncodedShard, Job, commit, encode, score
from pipeline.scoring import Scorer
from pipeline.tables.input.shards import Shard
from pipeline.tables.outage import wait_out
from pipeline.tables.output.attempts import MAX_ATTEMPTS, Attempts, Quarantined
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.markers import ShardReport

Outcome = ShardReport | Quarantined
"""What became of a shard."""


def encode_once(shard: Shard, job: Job) -> EncodedShard | Quarantined:
    """The same as `encode`, but a shard of which processes have died in this step is given up."""
    wait_out(job.config.max_outage_s)
    attempts = Attempts(Directory(job.config.output.path), shard, "encode")
    made = attempts.made()
    if made >= MAX_ATTEMPTS:
        return Quarantined.of(shard, "encode")
    with attempts.counted(made):
        return encode(shard, job)


class Worker:
    """One replica, its weights loaded before the first shard: it scores a shard and commits it.

    Called by two threads at once, it writes one shard while it scores the next.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        wait_out(job.config.max_outage_s)
        self._scoring, self._writing = Lock(), Lock()
        threads = max(1, int(job.config.actors.num_cpus))
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
        # What fails here would reach the driver as the text of a dead actor; in a call it arrives as itself.
        self._failure: RayrankError | None = None
        try:
            with fields_under("scorer"):
                self._scorer = Scorer(job.config.scorer)
                _ = self._scorer.model
        except RayrankError as error:
            self._failure = error

    def __call__(self, shard: Shard | EncodedShard) -> Outcome:
        """What became of the shard, which is encoded first where it comes unread."""
        if self._failure is not None:
            raise self._failure
        with ExitStack() as trying:
            with self._scoring:
                encoded = encode_once(shard, self._job) if isinstance(shard, Shard) else shard
                if isinstance(encoded, Quarantined):
                    return encoded
                attempts = Attempts(Directory(self._job.config.output.path), encoded.shard, "score")
                made = attempts.made()
                if made >= MAX_ATTEMPTS:
                    return Quarantined.of(encoded.shard, "score")
                trying.enter_context(attempts.counted(made))
                if made:
                    # A process died of this shard, or of the one beside it: nobody is beside it now.
                    trying.enter_context(self._writing)
                    return commit(score(encoded, self._scorer), self._job)
                scored = score(encoded, self._scorer)
            with self._writing:
                return commit(scored, self._job)
