"""Where the run goes, and what it holds of each candidate."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from pipeline.tables.positives import PositivesConfig
from pipeline.tables.schema import RAW_SCORE, RUN_COLUMNS


class OutputConfig(BaseModel):
    """Where the run goes, and what it holds."""

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
    training_rows: PositivesConfig | None = None
    """Write training_rows/ beside the run: FlagEmbedding's rows, with these positives and this job's scores
    as the teacher's. `label` names a column of keep_columns; kept columns `prompt`, `query_prompt`,
    `passage_prompt` and `type` go into the rows."""

    @field_validator("keep_columns")
    @classmethod
    def _leaves_the_run_its_columns(cls, value: dict[str, str]) -> dict[str, str]:
        # raw_score also where this job has none: whoever reads a run ranks by that column if it is there.
        taken = sorted(value.keys() & {*RUN_COLUMNS, RAW_SCORE})
        if taken:
            raise ValueError(f"{taken[0]} is a run's own; keep the input's under another name")
        return value

    @model_validator(mode="after")
    def _keeps_the_label(self) -> Self:
        label = self.training_rows and self.training_rows.label
        if label is not None and label not in self.keep_columns:
            raise ValueError(f"training_rows.label {label}: is none of keep_columns; keep that column")
        return self
