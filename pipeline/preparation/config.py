"""What `prepare` reads, and where the table that it makes goes."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.tables.config import PairsConfig, TextsConfig


class PreparedConfig(BaseModel):
    """Where the prepared table goes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    path: str = Field(min_length=1)
    """A directory that is empty, new, or holds an earlier attempt at this very table."""


class PrepareConfig(BaseModel):
    """How a candidate table that `rerank` takes is made of tables that hold ids, or scattered rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    candidates: PairsConfig
    queries: TextsConfig | None = None
    """Null: the candidates hold the queries' texts."""
    passages: TextsConfig | None = None
    """Null: the candidates hold the passages' texts."""
    output: PreparedConfig

    def determining_fields(self) -> dict[str, Any]:
        """What decides the output, besides what lies at the paths."""
        path = {"path"}
        exclude: dict[str, Any] = {"candidates": path, "queries": path, "passages": path, "output": True}
        return self.model_dump(mode="json", exclude=exclude)
