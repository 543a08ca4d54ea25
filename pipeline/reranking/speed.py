"""How fast one actor works: from what it did before, or measured now."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.actor_hours import MEASURE, timed, told_rate
from pipeline.errors import ConfigError, InputError, ModelError
from pipeline.job_record import JobRecord, dtypes_of, read_record
from pipeline.output import read_summary
from pipeline.reporting.summary import FEW_PAIRS, Summary
from pipeline.reranking.cascade import Level, named
from pipeline.reranking.cost import of_levels, worked_s
from pipeline.reranking.sample import Sample
from pipeline.reranking.shard import EncodedShard
from pipeline.run_date import PREVIOUS_DATE
from pipeline.scoring import Scorer
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.markers import Counts


@dataclass(frozen=True)
class Speed:
    """Of one actor of a level. Of the two, `tokens_per_s` also knows how long the texts are."""

    tokens_per_s: float | None = None
    pairs_per_s: float | None = None

    def seconds(self, pairs: float, tokens: float) -> float:
        """For so much that goes through the model."""
        if self.tokens_per_s is not None:
            return tokens / self.tokens_per_s
        assert self.pairs_per_s is not None
        return pairs / self.pairs_per_s


def told(
    how: str, levels: Sequence[Level], scorers: Sequence[Scorer], samples: Sequence[Sample]
) -> tuple[list[Speed], str]:
    """A speed a level, and where it is from. how: `measure`, pairs/s, or the output of a former run.

    Raises ConfigError, ModelError or InputError where none can be had.
    """
    if how == MEASURE:
        return _measured(levels, samples), "measured here"
    pairs_per_s = told_rate(how, "pairs/s")
    if pairs_per_s is None:
        return _former(how, levels, scorers)
    if len(levels) > 1:
        raise ConfigError(
            f"--speed {how}: each level has a speed of its own; measure, or name a former output"
        )
    return [Speed(pairs_per_s=pairs_per_s)], "as told"


def of_counts(levels: Sequence[Level], counts: Counts) -> list[Speed] | None:
    """What was done, over the time it took. None where that tells nothing of some level."""
    speeds, of_each = [], of_levels(counts)
    if len(of_each) < len(levels):
        return None
    for level, each in zip(levels, of_each, strict=True):
        if not (each.tokens and each.score_s):
            return None
        speeds.append(Speed(tokens_per_s=each.tokens / worked_s(level, each)))
    return speeds


def _former(url: str, levels: Sequence[Level], scorers: Sequence[Scorer]) -> tuple[list[Speed], str]:
    if PREVIOUS_DATE in url:
        raise ConfigError(
            f"--speed {url}: name the run of one date, such as the first, which scored every pair itself"
        )
    output = Directory(url)
    record, summary = read_record(output), read_summary(output, Summary)
    if record is None or record.command != "rerank" or summary is None:
        raise InputError(
            f"--speed {url}: no finished run of rerank lies there, nor is it `measure` or a number"
        )
    if (difference := _difference(record, levels, scorers)) is not None:
        raise InputError(f"--speed {url}: that run's {difference}; its speed tells nothing of this job's")
    speeds = of_counts(levels, summary)
    if speeds is None:
        raise InputError(f"--speed {url}: that run scored nothing itself; name another, or measure")
    scored = min(each.pairs - each.reused - each.copies for each in of_levels(summary))
    few = (
        f", which scored only {scored} pairs itself, too few to tell: use --speed {MEASURE}"
        if scored < FEW_PAIRS
        else ""
    )
    return speeds, f"of the run in {url}{few}"


def _difference(record: JobRecord, levels: Sequence[Level], scorers: Sequence[Scorer]) -> str | None:
    """What of the former run's scorers is another, as far as it changes how long a token takes."""
    fields = [f"{level.under}scorer" for level in levels]
    if list(record.models) != fields:
        return f"scorers are {', '.join(record.models)}, not {', '.join(fields)}"
    dtypes = dtypes_of(record)
    for field, level, scorer in zip(fields, levels, scorers, strict=True):
        if record.models[field] != scorer.fingerprint:
            return f"{field} has other weights"
        if level.scorer.dtype not in ("auto", dtypes[field]):
            return f"{field}.dtype is {dtypes[field]}, not {level.scorer.dtype}"
        if record.config[f"{field}.device"] != level.scorer.device:
            return f"{field}.device is {record.config[f'{field}.device']}, not {level.scorer.device}"
    return None


def _measured(levels: Sequence[Level], samples: Sequence[Sample]) -> list[Speed]:
    speeds = []
    for level, sample in zip(levels, samples, strict=True):
        encoded = sample.largest
        if encoded is None or not len(encoded.pairs):
            speeds.append(Speed(tokens_per_s=math.inf))  # nothing goes through this level's model
            continue
        try:
            with named(level):
                speeds.append(_measure(level, encoded))
        except ModelError as error:
            raise ModelError(
                f"--speed measure: {error}; measure on a machine like the actors', or give pairs/s"
            ) from error
    return speeds


def _measure(level: Level, encoded: EncodedShard) -> Speed:
    torch.set_num_threads(max(1, int(level.actors.num_cpus)))  # as an actor has
    scorer = Scorer(level.scorer)
    _ = scorer.model
    encode_s = 0.0 if level.actors.num_gpus else encoded.encode_s / len(encoded.pairs)

    def score(pairs: int) -> int:
        return scorer.forward(encoded.pairs.take(np.arange(pairs))).tokens

    found = timed(score, len(encoded.pairs))
    return Speed(tokens_per_s=found.tokens / (found.seconds + encode_s * found.number))
