"""What `mine` reads, which passages it takes for negatives, and where the training rows go."""

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from pipeline.config_file import flatten
from pipeline.run_date import Dated, RunDate
from pipeline.tables.config import InputConfig
from pipeline.tables.positives import PositivesConfig

PLACES: dict[str, Any] = {
    "input": {"path", "version", "queries", "passages", "success_file", "limits"},
    "positives": {"qrels"},
}
"""Fields of JudgedRunConfig that say where things lie: the files found there are compared themselves."""
_NOT_COMPARED: dict[str, Any] = PLACES | dict.fromkeys(
    ("output", "executor", "max_outage_s", "run_date"), True
)
_DATED = {"input.path", "input.queries", "input.passages", "positives.qrels", "output.path"}


class NegativesConfig(BaseModel):
    """Which candidates of a query are its negatives. Options of sentence-transformers keep their names."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    ranks: tuple[PositiveInt, PositiveInt] = Field(default=(10, 200), strict=False)
    """From which rank to which, both included: what ranks above is often relevant and was not judged."""
    number: PositiveInt = 15
    """Negatives a query."""
    at_least: PositiveInt = 1
    """A query for which fewer are found has no training row."""
    absolute_margin: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """How far a negative's score must lie below that of the query's lowest positive."""
    relative_margin: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """The same as a share of the positive's score: 0.05 takes negatives up to 95 % of it (NV-Retriever's
    TopK-PercPos)."""
    max_score: float | None = Field(default=None, allow_inf_nan=False)
    """Negatives score at most this. Null: no bound."""
    min_score: float | None = Field(default=None, allow_inf_nan=False)
    """Negatives score at least this. Null: no bound."""
    sampling: Literal["random", "top"] = "random"
    """Of more negatives than `number`: some at random, or those with the highest scores."""
    seed: int = 0
    """Of the random choice, which depends on it and on the ids alone."""

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> Self:
        first, last = self.ranks
        if first > last:
            raise ValueError(f"ranks [{first}, {last}]: the first one comes after the last")
        if self.at_least > self.number:
            raise ValueError(f"at_least {self.at_least}: is more than number {self.number}")
        least, most = self.min_score, self.max_score
        if least is not None and most is not None and least > most:
            raise ValueError(f"min_score {least}: is above max_score {most}")
        return self


class RowsConfig(BaseModel):
    """Where the training rows go."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    path: str = Field(min_length=1)
    """A directory that is empty, new, or holds an earlier attempt at this very job."""


class JudgedRunConfig(BaseModel):
    """A run, and which of its candidates are positives and which negatives. `finetune` takes one, too."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    # What FlagEmbedding's hn_mine and sentence-transformers' mine_hard_negatives call an option.
    NAMES_ELSEWHERE: ClassVar[dict[str, str]] = {
        "input_file": "input.path: a run, which pipeline.retrieve makes",
        "output_file": "output.path",
        **dict.fromkeys(("candidate_pool", "corpus"), "passages, of pipeline.retrieve"),
        **dict.fromkeys(
            ("embedder_name_or_path", "model"), "sources.NAME.dense.scorer.model, of pipeline.retrieve"
        ),
        "range_for_sampling": "negatives.ranks, counted from 1: 10-210 is [11, 210]",
        **dict.fromkeys(
            ("range_min", "range_max"), "negatives.ranks, counted from 1: 10 and 210 are [11, 210]"
        ),
        **dict.fromkeys(("negative_number", "num_negatives"), "negatives.number"),
        "sampling_strategy": "negatives.sampling",
        "margin": "negatives.absolute_margin",
        **dict.fromkeys(
            ("use_gpu_for_searching", "use_faiss", "search_batch_size"),
            "actors and sources, of pipeline.retrieve",
        ),
    }

    input: InputConfig
    """A run with its texts: the candidates of `retrieve`, a run of `rerank` that keeps the columns query and
    passage, or run.trec with the files of texts."""
    score: str = Field(default="score", min_length=1)
    """The column of the score: what margins compare, and the teacher's in the training rows."""
    rank: str | None = Field(default=None, min_length=1)
    """The column of the rank that `negatives.ranks` means. Null: by the score."""
    positives: PositivesConfig
    """Which candidates are positives; those alone that are in the run, with their texts."""
    negatives: NegativesConfig = NegativesConfig()

    @property
    def kept(self) -> dict[str, str]:
        """The columns to read beside ids and texts, under their own names."""
        names = (self.score, self.rank, self.positives.label)
        return {name: name for name in names if name is not None}


class MineConfig(JudgedRunConfig, Dated):
    """A whole job of `mine`."""

    output: RowsConfig
    shard_pairs: PositiveInt = 20_000
    """Candidates a shard: the unit that is lost and done again when something dies."""
    executor: Literal["ray_data", "here"] = "ray_data"
    """Where shards are mined: on a Ray cluster (started here where there is none), or in this process, one
    after another. Both write the same bytes."""
    max_outage_s: float = Field(default=300, ge=0, le=1200)
    """How long a store that does not answer is waited for, by each request."""
    run_date: RunDate = None
    """What {run_date} stands for in every field that says where things lie; never taken from the clock."""

    @classmethod
    def is_place(cls, name: str) -> bool:
        return name in _DATED

    def determining_fields(self) -> dict[str, Any]:
        """Dotted field to value, of what decides the output besides what lies at the paths."""
        return flatten(self.model_dump(mode="json", exclude=_NOT_COMPARED))
