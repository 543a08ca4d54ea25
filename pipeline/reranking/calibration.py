"""Calibrated models for a job's scorers: made in the plan, before any actor starts, and the same for all."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from pipeline import log
from pipeline.errors import TemporaryError
from pipeline.reranking.cascade import Level, named
from pipeline.reranking.config import RerankConfig
from pipeline.scoring import Quantization, Scorer, ScorerConfig
from pipeline.scoring.quantization import fingerprint_of
from pipeline.tables.candidates import Plan, read_shard
from pipeline.tables.output.directory import Directory
from pipeline.temporary_folder import filling, new_folder

_SHARDS = 16
"""Over which the pairs are spread, where these have enough."""
_NOT_MADE = "not calibrated yet"


def calibrated(level: Level, config: RerankConfig, plan: Plan, *, makes: bool) -> ScorerConfig:
    """The level's scorer, its calibrated model named by its content, as every process must find it.

    makes: calibrate on the table's pairs where no file is there. Of several who try at once one's file stays,
    and all take that. Raises RayrankError where it can't be made or is another model's.
    """
    scorer, quantization = level.scorer, level.scorer.quantization
    if quantization is None:
        return scorer
    directory, name = _place(quantization)
    data = directory.read(name)
    if data is None and makes:
        log.info("calibrating", path=quantization.path, pairs=quantization.calibration_pairs)
        directory.create(name, _made(level, config, plan))
        data = directory.read(name)
    fingerprint = _NOT_MADE if data is None else fingerprint_of(data)
    if quantization.fingerprint is not None and data is not None:
        fingerprint = quantization.fingerprint  # the user's, which is held against the file below
    pinned = quantization.model_copy(update={"path": f"{directory.url}/{name}", "fingerprint": fingerprint})
    made = scorer.model_copy(update={"quantization": pinned})
    if data is not None:
        with named(level), at_hand(made) as here:
            Scorer(here).check_calibration()
    return made


def _made(level: Level, config: RerankConfig, plan: Plan) -> bytes:
    assert level.scorer.quantization is not None
    pairs = sampled_pairs(config, plan, level.scorer.quantization.calibration_pairs)
    with named(level):
        return Scorer(level.scorer).calibrate(pairs)


def sampled_pairs(config: RerankConfig, plan: Plan, number: int) -> list[tuple[str, str]]:
    """Up to `number` pairs, spread over the table: whatever languages stand in it, they are among them."""
    first = spread(len(plan.shards), min(number, _SHARDS))
    further = [at for at in range(len(plan.shards)) if at not in set(first)]
    pairs: list[tuple[str, str]] = []
    taken: dict[int, list[int]] = {}
    # Where all have been looked at, the first ones give what they kept: a quota is less than a shard.
    for done, at in enumerate([*first, *further, *first]):
        if len(pairs) == number:
            break
        candidates, _ = read_shard(plan.shards[at], config.input, config.kept, plan)
        left = np.setdiff1d(np.arange(candidates.num_rows), taken.get(at, []))
        wanted = (number - len(pairs)) // max(1, len(first) - done)
        taken[at] = left[spread(len(left), wanted)].tolist()
        rows = candidates.select(["query", "passage"]).take(pa.array(taken[at], pa.int64())).to_pylist()
        pairs += [(row["query"], row["passage"]) for row in rows]
    return pairs


def spread(number: int, wanted: int) -> list[int]:
    """Up to `wanted` of `number` positions, each once, as far from each other and the ends as they come."""
    wanted = min(number, wanted)
    return [(at * number + number // 2) // wanted for at in range(wanted)]


@contextmanager
def at_hand(scorer: ScorerConfig) -> Iterator[ScorerConfig]:
    """The scorer with its calibrated model on the local disk, until the block ends: weights load in it.

    Raises TemporaryError where a store has none any more: another start makes it.
    """
    quantization = scorer.quantization
    if quantization is None or "://" not in quantization.path:
        yield scorer
        return
    directory, name = _place(quantization)
    data = directory.read(name)
    if data is None:
        raise TemporaryError(f"quantization.path: {quantization.path}: is gone; start the job again")
    failed = f"quantization.path: {quantization.path}: can't be copied"
    with new_folder("rayrank-calibrated-", failed) as folder:
        copy = folder / "calibrated"
        with filling(folder, failed):
            copy.write_bytes(data)
        yield scorer.model_copy(update={"quantization": quantization.model_copy(update={"path": str(copy)})})


def _place(quantization: Quantization) -> tuple[Directory, str]:
    parent, _, name = quantization.path.rpartition("/")
    return Directory(parent or ("/" if quantization.path.startswith("/") else ".")), name
