"""What `prepare` reads, and where the table that it makes goes."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.run_date import Dated, RunDate
from pipeline.tables.config import PairsConfig, TextsConfig

_PLACES = {"candidates.path", "queries.path", "passages.path", "output.path"}


class PreparedConfig(BaseModel):
    """Where the prepared table goes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    path: str = Field(min_length=1)
    """A directory that is empty, new, or holds an earlier attempt at this very table."""


class PrepareConfig(Dated):
    """How a candidate table that `rerank` takes is made of tables that hold ids, or scattered rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    candidates: PairsConfig
    queries: TextsConfig | None = None
    """Null: the candidates hold the queries' texts."""
    passages: TextsConfig | None = None
    """Null: the candidates hold the passages' texts."""
    output: PreparedConfig
    executor: Literal["ray_data", "here"] = "ray_data"
    """Where it is made: on a Ray cluster (started here where there is none), or in this process, which holds
    all rows in memory and starts at once."""
    max_outage_s: float = Field(default=300, ge=0, le=1200)
    """How long a store that does not answer is waited for, by each request."""
    run_date: RunDate = None
    """What {run_date} stands for in every field that says where things lie; never taken from the clock."""

    @classmethod
    def is_place(cls, name: str) -> bool:
        return name in _PLACES

    def determining_fields(self) -> dict[str, Any]:
        """What decides the output, besides what lies at the paths."""
        path = {"path", "version", "success_file", "limits"}
        exclude: dict[str, Any] = {"candidates": path, "queries": path, "passages": path}
        exclude |= {"output": True, "executor": True, "max_outage_s": True, "run_date": True}
        return self.model_dump(mode="json", exclude=exclude)
