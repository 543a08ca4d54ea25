"""A model of several scorers, one after another: each level has replicas of its own."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.levels import fuse
from pipeline.ranking import original_ranks, ranks
from serve.config import ModelConfig, ServeConfig
from serve.service import Model
from serve.work import LevelScores, ModelInfo, Refused, Scores, Work

Places = npt.NDArray[np.int64]
Number = TypeVar("Number", bound=np.generic)


class Level(Model, Protocol):
    """What has replicas: a model of one scorer, or a level of a cascade."""

    async def full(self) -> Refused | None:
        """Why a request that comes now would be refused, whatever it is; None where it would not."""


def assembled(config: ServeConfig, singles: Mapping[str, Level]) -> dict[str, Model]:
    """The models that requests name. singles: what has replicas, by `ModelConfig.singles`' names."""
    models: dict[str, Model] = {}
    for name, model in config.models.items():
        own = [singles[single] for single in model.singles(name)]
        models[name] = own[0] if model.levels is None else Cascade(model, own)
    return models


class Cascade:
    """Passages of a query that a level cut stay in their order, below those that went on."""

    def __init__(self, config: ModelConfig, levels: Sequence[Level]) -> None:
        self._config = config.levels or ()
        self._levels = levels
        singles = config.singles("").values()
        self._always_there = {
            number: level
            for number, (level, single) in enumerate(zip(levels, singles, strict=True))
            if single.replicas.min
        }

    async def score(self, work: Work) -> Scores | Refused:
        begin = time.monotonic()
        if (full := await self._full_later()) is not None:
            return full
        table = _grouped(work)
        rows, order = table["place"].to_numpy(), original_ranks(table["query_id"]).astype(np.int32)
        saw = np.arange(len(rows))  # rows of the table
        found: list[tuple[Places, Scores]] = []
        levels: list[LevelScores] = []
        for number, (level, model) in enumerate(zip(self._config, self._levels, strict=True)):
            places = rows[saw]
            outcome = await model.score(_part(work, places, time.monotonic() - begin))
            if isinstance(outcome, Refused):
                return _of_the_whole(outcome, number, places)
            found.append((places, outcome))
            theirs, score = table.take(pa.array(saw)), pa.array(outcome.raw)
            if level.fuse is not None:
                raw = [_by_place(scores.raw, at, len(rows))[places] for at, scores in found]
                candidates = theirs.rename_columns({"place": "passage_id"})
                score = fuse([pa.array(each) for each in raw], candidates, level.fuse)
            own = ranks(theirs["query_id"], theirs["place"], score).to_numpy()
            order[saw] = own
            levels.append(_told(places, outcome, own))
            saw = saw if level.keep is None else saw[own <= level.keep]
        return _together(_by_place(order, rows, len(rows)), found, levels)

    async def _full_later(self) -> Refused | None:
        """A level that would refuse shall not do so when those before have worked for it."""
        later = {number: level for number, level in self._always_there.items() if number}
        for number, full in zip(
            later, await asyncio.gather(*(each.full() for each in later.values())), strict=True
        ):
            if full is not None:
                return _of_the_level(full, number)
        return None

    async def info(self) -> ModelInfo | Refused:
        """Of the last level, by the names of all."""
        infos = []
        for number, model in enumerate(self._levels):
            info = await model.info()
            if isinstance(info, Refused):
                return _of_the_level(info, number)
            infos.append(info)
        return replace(
            infos[-1],
            model=" > ".join(info.model for info in infos),
            fingerprint=" > ".join(info.fingerprint for info in infos),
            cutoff_layers=(),
            normalizes=False,
        )

    async def check(self) -> None:
        await asyncio.gather(*(level.check() for level in self._always_there.values()))


def _grouped(work: Work) -> pa.Table:
    """`query_id`, a number, and `place`, the pair's in the work: a query's together, as they came."""
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(query, len(numbers)) for query in work.queries], np.int64)
    places = np.argsort(ids, kind="stable")
    return pa.table({"query_id": ids[places], "place": places})


def _part(work: Work, places: Places, spent_s: float) -> Work:
    """Some pairs of the work."""
    left_s = None if work.timeout_s is None else work.timeout_s - spent_s
    queries, passages = ([texts[at] for at in places] for texts in (work.queries, work.passages))
    return replace(work, queries=queries, passages=passages, timeout_s=left_s)


def _of_the_whole(refused: Refused, number: int, places: Places) -> Refused:
    """A level's refusal in the numbers of the request."""
    message = refused.message
    if refused.pair is not None:
        place = int(places[refused.pair])
        message = message.replace(f"pair {refused.pair}:", f"pair {place}:", 1)
        refused = replace(refused, pair=place)
    return _of_the_level(replace(refused, message=message), number)


def _of_the_level(refused: Refused, number: int) -> Refused:
    return replace(refused, message=f"levels.{number}: {refused.message}")


def _told(places: Places, outcome: Scores, own: npt.NDArray[np.int32]) -> LevelScores:
    return LevelScores(
        places=places,
        scores=outcome.scores,
        ranks=own,
        tokens=int(outcome.tokens.sum()),
        tokenization_s=outcome.tokenization_s,
        queue_s=outcome.queue_s,
        inference_s=outcome.inference_s,
    )


def _together(
    order: npt.NDArray[np.int32],
    found: Sequence[tuple[Places, Scores]],
    levels: Sequence[LevelScores],
) -> Scores:
    """order: the final rank of each pair.

    Scores of several models have no order, 1 / rank has that of the ranks.
    """
    score = (1.0 / order).astype(np.float32)
    _, first = found[0]
    tokens, query_cut, passage_cut, windows = (
        np.zeros(len(order), kind) for kind in (np.int64, *[np.int32] * 3)
    )
    spans = None if first.spans is None else [(0, 0)] * len(order)
    for places, outcome in found:
        tokens[places] += outcome.tokens
        query_cut[places], passage_cut[places] = outcome.query_cut, outcome.passage_cut
        windows[places] = outcome.windows
        for place, span in zip(places, outcome.spans or (), strict=False):
            assert spans is not None
            spans[place] = span
    return Scores(
        scores=score,
        raw=score,
        normalizes=False,
        tokens=tokens,
        query_cut=query_cut,
        passage_cut=passage_cut,
        windows=windows,
        spans=spans,
        tokenization_s=sum(level.tokenization_s for level in levels),
        queue_s=sum(level.queue_s for level in levels),
        inference_s=sum(level.inference_s for level in levels),
        levels=tuple(levels),
    )


def _by_place(values: npt.NDArray[Number], places: Places, count: int) -> npt.NDArray[Number]:
    """The values where the pairs stand in the work; zeros at those without one."""
    spread = np.zeros(count, values.dtype)
    spread[places] = values
    return spread
