"""From a request of any dialect to scores of the model that it names."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Protocol

from fastapi import Request

from serve.config import ServeConfig
from serve.dialect import Answer, Call
from serve.keys import Gate
from serve.problems import Problem, TooManyPassages, UnknownModel
from serve.work import ModelInfo, Refused, Scores, Work

READY_WITHIN_S = 2.0
"""A request for a model without replicas would wait for one."""


class Model(Protocol):
    """A model that is served, wherever its replicas run."""

    async def score(self, work: Work) -> Scores | Refused:
        """Cancelled, the work is dropped."""

    async def info(self) -> ModelInfo | Refused: ...

    async def check(self) -> None:
        """Raises where no replica would score."""


class Service:
    """The models behind the API, by name."""

    def __init__(self, config: ServeConfig, models: Mapping[str, Model], gate: Gate) -> None:
        self.config = config
        self._models = models
        self._aliases = {alias: name for name, model in config.models.items() for alias in model.aliases}
        self._gate = gate

    async def answer(self, request: Request, call: Call) -> Answer:
        """Raises Problem."""
        name = self._name_of(call.model)
        pairs = len(call.work.passages)
        if pairs > self.config.api.max_passages:
            raise TooManyPassages(pairs, self.config.api.max_passages, call.noun)
        if not pairs:
            raise Problem("empty", f"{call.noun}: at least one is needed", call.noun)
        _check_lengths(call, self.config.api.max_text_characters)
        self._check_cutoff(name, call.work.cutoff_layer)
        state = request.state
        state.report.model, state.report.pairs = name, pairs
        state.report.characters = sum(map(len, call.work.queries)) + sum(map(len, call.work.passages))
        if self.config.api.log_texts:
            queries = call.work.queries
            asked = {"queries": queries} if len(set(queries)) > 1 else {"query": queries[0]}
            state.report.texts = asked | {"passages": call.work.passages}
        self._gate.count_pairs(state.key, pairs)
        left_s = state.deadline - asyncio.get_running_loop().time()
        outcome = await self._models[name].score(replace(call.work, timeout_s=left_s))
        if isinstance(outcome, Refused):
            raise Problem(outcome.kind, call.refusal(outcome), retry_after_s=outcome.retry_after_s)
        state.report.scores = outcome
        return Answer(state.request_id, name, outcome)

    @property
    def default(self) -> str:
        """The model of requests that name none."""
        return next(iter(self._models))

    async def info(self, name: str) -> ModelInfo:
        """Raises Problem."""
        info = await self._models[name].info()
        if isinstance(info, Refused):
            raise Problem(info.kind, info.message, retry_after_s=info.retry_after_s)
        return info

    async def not_ready(self) -> list[str]:
        """The models that should have a replica and have none that says in time that it scores."""
        asked = {
            name: asyncio.create_task(self._models[name].check())
            for name, model in self.config.models.items()
            if any(single.replicas.min for single in model.singles(name).values())
        }
        try:
            if asked:
                await asyncio.wait(asked.values(), timeout=READY_WITHIN_S)
        finally:  # a client may leave
            for task in asked.values():
                task.cancel()  # nothing, where it is done
        return [name for name, task in asked.items() if not _went_well(task)]

    def _name_of(self, model: str | None) -> str:
        if model in (None, "", "default"):
            return self.default
        name = self._aliases.get(str(model), str(model))
        if name not in self._models:
            raise UnknownModel(name[:80], [*self._models, *self._aliases])
        return name

    def _check_cutoff(self, name: str, layer: int | None) -> None:
        layers = self.config.models[name].cutoff_layers
        if layer is not None and layer not in layers:
            known = (
                f"cutoff layers {', '.join(map(str, layers))}" if layers else "one score, no cutoff layers"
            )
            raise Problem("invalid", f"cutoff_layer: the model {name} is served with {known}", "cutoff_layer")


def _check_lengths(call: Call, limit: int) -> None:
    """Raises Problem for a text of more characters."""
    queries = call.work.queries
    several = len(set(queries)) > 1
    places = ((f"queries.{index}" if several else "query", text) for index, text in enumerate(queries))
    passages = ((f"{call.noun}.{index}", text) for index, text in enumerate(call.work.passages))
    for place, text in chain(places, passages):
        if len(text) > limit:
            raise Problem(
                "text_size",
                f"{place}: {len(text)} characters are more than the {limit} allowed (api.max_text_characters"
                " of the server's config): cut the text before you send it",
                place,
            )


def _went_well(task: "asyncio.Task[None]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
