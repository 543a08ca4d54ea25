"""MTEB's reranking tasks, with a scorer of ours in the place of a model.

The library mteb (2.26) hands the pairs of a task to any object with `predict` and `mteb_model_meta`, its
CrossEncoderProtocol, and measures what comes back with pytrec_eval. It is an extra, and imported here alone.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from pipeline import log
from pipeline.errors import ConfigError, InputError, ScoringError, fields_under
from pipeline.redaction import redacted
from pipeline.scoring import Scorer, ScorerConfig

_PAIRS = 4_000
"""Scored in one call: enough to fill batches of like lengths, few enough to be told of."""
_SHOWN_TOO = ("ndcg_at_10", "mrr_at_10")
_REASON_CHARS = 300


class TaskScores(BaseModel):
    """One split of a task, in one of its languages: what mteb measured."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    task: str
    dataset_revision: str
    mteb_version: str
    split: str
    subset: str
    """`default` where the task has one language."""
    main_measure: str
    """The one that MTEB's tables show."""
    main_score: float
    """Between 0 and 1."""
    measures: dict[str, float]
    """What mteb computes, by its names, but for values that are no numbers (nauc of equal values)."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)

    scorer: ScorerConfig
    tasks: list[TaskScores]


class Reranker:
    """A Scorer as mteb's CrossEncoderProtocol has it."""

    def __init__(self, scorer: Scorer) -> None:
        """Raises ConfigError where mteb is not installed."""
        self._scorer = scorer
        # Name and revision are those of the weights. mteb's cache goes by them and knows no other option of a
        # scorer, so it stays out of use.
        self.mteb_model_meta = _library().models.ModelMeta.create_empty(
            {
                "name": scorer.checkpoint.name,
                "revision": scorer.fingerprint,
                "model_type": ["cross-encoder"],
            }
        )

    def predict(
        self,
        inputs1: Iterable[Mapping[str, Any]],
        inputs2: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: object = None,  # noqa: ARG002  (None for pairs)
        **kwargs: object,  # noqa: ARG002  (batch_size and the like: the scorer makes its own batches)
    ) -> npt.NDArray[np.float32]:
        """One raw score a pair, in order: `normalize` could make equal ones of unequal ones.

        inputs1, inputs2: batches of queries, an instruction included, and of passages, under `text`. Raises
        ScoringError for a pair that has no score, with the task's name.
        """
        pairs = zip(_texts(inputs1), _texts(inputs2), strict=True)
        done, told = 0, time.monotonic()
        scores: list[npt.NDArray[np.float32]] = []
        while some := list(islice(pairs, _PAIRS)):
            try:
                scores.append(self._scorer.forward(self._scorer.encode(some)).scores)
            except ScoringError as error:
                where = f"{task_metadata.name}, {hf_split}, {hf_subset}: pair"
                raise ScoringError(done + error.index, error.reason, where) from error
            done += len(some)
            if time.monotonic() - told > 60:
                log.info("scored", task=task_metadata.name, split=hf_split, subset=hf_subset, pairs=done)
                told = time.monotonic()
        return np.concatenate(scores) if scores else np.empty(0, np.float32)


def find_tasks(names: Sequence[str]) -> list[Any]:
    """MTEB's tasks of these names. Raises ConfigError for one that is unknown, or reranks no texts."""
    library, tasks = _library(), []
    for name in names:
        try:
            task = library.get_task(name)
        except KeyError as error:
            raise ConfigError(f"--mteb {name}: {error.args[0].removeprefix('KeyError: ')}") from error
        kind, modalities = task.metadata.type, task.metadata.modalities
        if "Reranking" not in kind or list(modalities) != ["text"]:
            raise ConfigError(
                f"--mteb {name}: is a task of type {kind} ({', '.join(modalities)});"
                " a reranker needs one that reranks texts, such as T2Reranking"
            )
        tasks.append(task)
    return tasks


def measure(config: ScorerConfig, tasks: Sequence[Any]) -> Iterator[TaskScores]:
    """Score each task in this process and measure it, a split and language after another.

    tasks: of `find_tasks`, or others of mteb's AbsTaskRetrieval that bring their candidates along. Raises
    ConfigError or ModelError for what does not fit, InputError where a task's data can't be had.
    """
    library = _library()
    if config.cutoff_layers is not None and len(config.cutoff_layers) > 1:
        raise ConfigError(
            "scorer.cutoff_layers: a task ranks by one score; give one layer", field="scorer.cutoff_layers"
        )
    with fields_under("scorer"):
        scorer = Scorer(config)
        scorer.score([("a query", "a passage")])  # loads all: mistakes are told before data is fetched
    reranker = Reranker(scorer)
    for task in tasks:
        _load(task)
        found = library.evaluate(reranker, task, cache=None, co2_tracker=False, show_progress_bar=False)
        task.unload_data()
        yield from _scores(task, found.task_results[0])


def line(scores: TaskScores) -> str:
    """What is printed of them."""
    where = scores.split if scores.subset == "default" else f"{scores.split} {scores.subset}"
    shown = {scores.main_measure: scores.main_score}
    shown |= {name: scores.measures[name] for name in _SHOWN_TOO if name in scores.measures}
    values = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
    return f"{scores.task} ({where})  {values}"


def as_json(config: ScorerConfig, found: list[TaskScores]) -> str:
    """The same for machines."""
    return redacted(_Record(scorer=config, tasks=found).model_dump_json(indent=2))


def _library() -> Any:
    try:
        import mteb  # noqa: PLC0415  (an extra, for those who use it)
    except ImportError as error:
        raise ConfigError("--mteb needs mteb: pip install 'rayrank[mteb]'") from error
    return mteb


def _texts(batches: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    return chain.from_iterable(batch["text"] for batch in batches)


def _load(task: Any) -> None:
    """Before mteb does it: with a data set that is not found it goes on, and fails elsewhere."""
    try:
        task.load_data()
    except Exception as error:  # datasets and what is below it raise whatever they like
        reason = " ".join(str(error).split())[:_REASON_CHARS]
        raise InputError(
            f"{task.metadata.name}: its data can't be loaded: {reason}. It comes from the Hugging Face hub;"
            " where that can't be reached, fill HF_HOME on a machine that reaches it, and copy it here"
        ) from error


def _is_number(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _scores(task: Any, result: Any) -> Iterator[TaskScores]:
    for split, subsets in result.scores.items():
        for values in subsets:
            numbers = {name: value for name, value in values.items() if _is_number(value)}
            yield TaskScores(
                task=result.task_name,
                dataset_revision=result.dataset_revision,
                mteb_version=result.mteb_version,
                split=split,
                subset=values["hf_subset"],
                main_measure=task.metadata.main_score,
                main_score=numbers.pop("main_score"),
                measures=numbers,
            )
