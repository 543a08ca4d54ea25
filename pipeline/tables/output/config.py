"""Where the run goes, and what it holds of each candidate."""

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from pipeline.tables.schema import RUN_COLUMNS


class OutputConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    path: str = Field(min_length=1)
    """A directory that is empty, new, or holds an earlier attempt at this very job."""
    top_k: PositiveInt | None = None
    """Candidates kept a query; null keeps all."""
    keep_columns: dict[str, str] = {}
    """Columns of the input to pass through: the name in the run on the left, the input's on the right.

    Also keys of the path, as in .../lang=en/day=2026-11-20/part-0.parquet, whose values are text.
    """
    trec_run: bool = False
    """Write run.trec beside the Parquet run."""

    @field_validator("keep_columns")
    @classmethod
    def _leaves_the_run_its_columns(cls, value: dict[str, str]) -> dict[str, str]:
        taken = sorted(value.keys() & set(RUN_COLUMNS))
        if taken:
            raise ValueError(f"the run has a {taken[0]} of its own; keep the input's under another name")
        return value
