"""A stand-in for the model, to see what a job costs besides scoring. It may wait, as for a GPU.

`ray.init(runtime_env={"worker_process_setup_hook": install})` puts it into every worker.
"""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.reranking import shard, worker
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.results import Scored
from pipeline.scoring.truncation import Fit

TOKENS_A_PAIR = 8


def install(seconds_a_shard: float = 0.0, log: str = "") -> None:
    """Let this process score with a StandIn.

    log: a directory, where each process writes a file with a line a shard: when scoring began and ended.
    """

    def make(_config: Any) -> StandIn:
        return StandIn(seconds_a_shard, log)

    for module in (shard, worker):
        module.Scorer = make  # type: ignore[attr-defined]  # the name that its functions look up


class StandIn:
    """Scores a passage by its length, after a wait."""

    def __init__(self, seconds_a_shard: float, log: str) -> None:
        self._seconds, self._log = seconds_a_shard, log
        self.model = None

    def encode(self, pairs: Sequence[tuple[str, str]]) -> EncodedPairs:
        ids = np.arange(TOKENS_A_PAIR, dtype=np.int32)
        fit = Fit(query=(0, 1), windows=[(0, 1)], query_cut=0, passage_cut=0)
        lengths = [len(passage) for _, passage in pairs]
        return EncodedPairs.of([fit] * len(pairs), [ids] * len(pairs), {"length": lengths})

    def forward(self, encoded: EncodedPairs) -> Scored:
        begin = time.time()
        time.sleep(self._seconds)
        if self._log:
            with (Path(self._log) / f"{os.getpid()}.jsonl").open("a") as stream:
                stream.write(json.dumps([begin, time.time()]) + "\n")
        scores = encoded.inputs["length"].to_numpy().astype(np.float32)
        tokens = TOKENS_A_PAIR * len(scores)
        return Scored(scores, np.zeros(len(scores), np.int32), tokens, tokens, copies=0)

    def shown(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """As they are."""
        return scores
