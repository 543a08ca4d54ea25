"""What `retrieve` reads, how it finds candidates, and where the table that it makes goes."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)

from pipeline.config_file import flatten
from pipeline.placement import JobActors
from pipeline.retrieval.fusion import FusionConfig
from pipeline.retrieval.tokens import TokensConfig
from pipeline.run_date import Dated, RunDate
from pipeline.scoring.config import ScorerConfig
from pipeline.tables.config import TextsConfig

_OWN_COLUMNS = {"query_id", "query", "passage_id", "passage", "first_stage_rank", "first_stage_score"}
_COMPARED_BY_CONTENT = (
    "model",
    "revision",
    "local_files_only",
    "peft_path",
    "peft_revision",
    "quantization.path",
    "quantization.fingerprint",
)
"""Where weights lie: what is found there is compared itself."""
_PLACES = {"passages.path", "queries.path", "output.path", "reuse"}
"""Fields that say where things lie, beside those of weights."""
_SOURCE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""Files bear it, among other words: a store takes 255 bytes a name, some 143."""
_TopK = Annotated[int, Field(gt=0, le=2**31 - 1)]
"""Ranks are int32."""


def scorer_field(source: str) -> str:
    """Where a source's scorer stands in the config."""
    return f"sources.{source}.dense.scorer"


def source_of(field: str) -> str:
    """The source whose scorer stands there."""
    return field.removeprefix("sources.").removesuffix(".dense.scorer")


class Bm25Config(TokensConfig):
    """Words that query and passage share, by Lucene's formula."""

    k1: float = Field(default=0.9, ge=0, le=1e6)
    """How much a word's further occurrences in a passage count."""
    b: float = Field(default=0.4, ge=0, le=1)
    """How much a passage's length counts against it."""


class DenseConfig(BaseModel):
    """Embeddings of query and passage that are alike, searched exactly."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    scorer: ScorerConfig
    """A checkpoint that embeds: bge-*-v1.5, MiniLM, ... With `long_passages` a passage has a vector a window,
    and its best one counts."""
    dtype: Literal["float32", "float16"] = "float32"
    """Of the embeddings that are kept. float16 takes half the room and moves scores by some 0.0005."""

    @model_validator(mode="after")
    def _best_window_counts(self) -> Self:
        windows = self.scorer.long_passages
        if windows is not None and windows.strategy == "mean":
            raise ValueError("scorer.long_passages.strategy mean: a search takes the best window; write max")
        return self


class SourceConfig(BaseModel):
    """One way to find candidates: words or embeddings."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    bm25: Bm25Config | None = None
    """Find by words."""
    dense: DenseConfig | None = None
    """Find by embeddings."""
    top_k: _TopK | None = None
    """Candidates a query that this source finds. Null: output.top_k."""

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if (self.bm25 is None) == (self.dense is None):
            raise ValueError("needs either bm25 or dense")
        return self


class CandidatesConfig(BaseModel):
    """Where the candidate table goes, and what it holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    path: str = Field(min_length=1)
    """A directory that is empty, new, or holds an earlier attempt at this very job."""
    top_k: _TopK = 100
    """Candidates a query."""
    texts: bool = True
    """Whether the table holds the texts, as `rerank` takes it, or ids alone."""
    keep_columns: dict[str, str] = {}
    """Columns of the passages to pass through: the table's name on the left, the passages' on the right."""
    trec_run: bool = False
    """Write run.trec beside the table, and of several sources run.NAME.trec: what each found alone, up to its
    own `top_k`."""

    @field_validator("keep_columns")
    @classmethod
    def _leaves_the_table_its_columns(cls, value: dict[str, str]) -> dict[str, str]:
        taken = sorted(value.keys() & _OWN_COLUMNS)
        if taken:
            raise ValueError(f"the table has a {taken[0]} of its own; keep the passages' under another name")
        return value


class RetrieveConfig(Dated):
    """A whole first stage."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    passages: TextsConfig
    """The texts to search."""
    queries: TextsConfig
    """The texts to search for."""
    sources: dict[str, SourceConfig] = Field(min_length=1)
    """By names of your own (a-z, 0-9 and _, at most 64), which the table's columns bear where there are
    several."""
    fusion: FusionConfig = FusionConfig()
    """How the lists of several sources become one."""
    leave_out_self: bool = False
    """Leave out the passage whose id is the query's own, where the queries are passages themselves."""
    output: CandidatesConfig
    shard_passages: PositiveInt = 50_000
    """Passages a shard: the unit that is lost and done again when something dies."""
    actors: JobActors = JobActors()
    """What embeds and what searches embeddings takes."""
    executor: Literal["ray_data", "here"] = "ray_data"
    """Where the work is done: on a Ray cluster (started here where there is none), or in this process, one
    task after another with `actors.num_cpus` threads, which starts at once. Both write the same bytes."""
    max_outage_s: float = Field(default=300, ge=0, le=1200)
    """How long a store that does not answer is waited for, by each request."""
    reuse: str | None = Field(default=None, min_length=1)
    """The output directory of a finished first stage, whose embeddings are taken for equal texts: a source
    takes those of one with the same `dense`, whatever its name. With {previous_run_date} in it: the latest
    one there of a date before `run_date` that is finished and has such a source; where there is none, every
    text is embedded."""
    run_date: RunDate = None
    """What {run_date} stands for in every field that says where things lie; never taken from the clock."""

    @classmethod
    def is_place(cls, name: str) -> bool:
        return name in _PLACES or name.partition(".dense.scorer.")[2] in _COMPARED_BY_CONTENT

    @model_validator(mode="after")
    def _sources_name_columns(self) -> Self:
        for name in self.sources:
            if not _SOURCE_NAME.fullmatch(name):
                raise ValueError(
                    f"sources.{name}: a name is made of a-z, 0-9 and _, begins with a letter, and has 64"
                    " characters at most"
                )
        for column in self.source_columns:
            if column in _OWN_COLUMNS:
                name = column.rpartition("_")[0]
                raise ValueError(f"sources.{name}: the table has a {column} of its own; take another name")
        taken = sorted(self.output.keep_columns.keys() & set(self.source_columns))
        if taken:
            raise ValueError(
                f"output.keep_columns: the table has a {taken[0]} of its own; keep yours under another name"
            )
        return self

    @model_validator(mode="after")
    def _device_fits_the_actors(self) -> Self:
        if self.actors.num_gpus and not self.dense:
            raise ValueError(
                f"actors.num_gpus {self.actors.num_gpus:g} holds GPUs that no source uses: bm25 computes on"
                " CPUs; leave it out"
            )
        for name, dense in self.dense.items():
            self.actors.check_device(dense.scorer.device, "actors", scorer_field(name))
        return self

    @model_validator(mode="after")
    def _weights_are_of_sources(self) -> Self:
        unknown = sorted(self.fusion.weights.keys() - self.sources.keys())
        if unknown:
            raise ValueError(
                f"fusion.weights: there is no source {unknown[0]}; there is {', '.join(self.sources)}"
            )
        return self

    @property
    def dense(self) -> dict[str, DenseConfig]:
        """The sources that find by embeddings. Where there is none, nothing needs torch."""
        return {name: source.dense for name, source in self.sources.items() if source.dense is not None}

    @property
    def source_columns(self) -> list[str]:
        """The table's columns of each source; none where there is one source."""
        if len(self.sources) == 1:
            return []
        return [f"{name}_{column}" for name in self.sources for column in ("rank", "score")]

    def depth(self, source: str) -> int:
        """Candidates a query that a source finds."""
        return self.sources[source].top_k or self.output.top_k

    def determining_fields(self) -> dict[str, Any]:
        """Dotted field to value, of what decides the output besides what lies at the paths."""
        place = {"path", "version", "success_file", "limits"}
        exclude: dict[str, Any] = {"passages": place, "queries": place, "output": {"path"}}
        exclude |= dict.fromkeys(("actors", "executor", "max_outage_s", "reuse", "run_date"), True)
        fields = flatten(self.model_dump(mode="json", exclude=exclude))
        for name, dense in self.dense.items():
            scorer = f"{scorer_field(name)}."
            for field in _COMPARED_BY_CONTENT:
                fields.pop(f"{scorer}{field}", None)
            if dense.scorer.quantization is None:
                del fields[f"{scorer}quantization"]  # as records of before it have it
            fields[f"{scorer}device"] = self.actors.place(dense.scorer).device
        # Columns have an order, a mapping compares without one.
        fields |= {"order of sources": list(self.sources)}
        return fields | {"output.keep_columns": [list(pair) for pair in self.output.keep_columns.items()]}
