"""Where the candidate table lies and what its columns are called; where the run goes."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class ColumnNames(BaseModel):
    """Our names on the left, the table's on the right."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    query_id: str = "query_id"
    query: str = "query"
    passage_id: str = "passage_id"
    passage: str = "passage"
    candidates: str = "candidates"
    """Nested tables only (a row a query): the list of structs that hold passage_id and passage."""


class InputConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    path: str = Field(min_length=1)
    """A file, a directory (searched to its depths) or a glob; a local path or any fsspec or pyarrow URL.

    delta, lance: the table's URL. iceberg: its metadata.json, or catalog://CATALOG/NAMESPACE.TABLE.
    """
    format: Literal["parquet", "jsonl", "csv", "trec", "delta", "iceberg", "lance"] = "parquet"
    version: int | None = None
    """delta, iceberg (a snapshot's id), lance: null takes the latest. A job that a changed table would stop
    goes on with the version it began with, which its log tells."""
    columns: ColumnNames = ColumnNames()
    queries: str | None = None
    """trec only: the queries' texts, JSON lines (`_id`, `text`) or tab-separated."""
    passages: str | None = None
    """trec only: the passages' texts, JSON lines (`_id`, `title`, `text`) or tab-separated."""

    @model_validator(mode="after")
    def _texts_go_with_trec(self) -> Self:
        if self.format == "trec" and not (self.queries and self.passages):
            raise ValueError(
                "format trec holds ids only: give queries and passages, the files with their texts"
            )
        if self.format != "trec" and (self.queries or self.passages):
            raise ValueError(f"queries and passages go with format trec; {self.format} tables hold the texts")
        return self

    @model_validator(mode="after")
    def _versions_go_with_tables(self) -> Self:
        if self.version is not None and self.format not in ("delta", "iceberg", "lance"):
            raise ValueError(f"version goes with delta, iceberg and lance; {self.format} files have none")
        return self


class TextColumns(BaseModel):
    """Of a table of texts: our names on the left, the table's on the right; BEIR's where nothing is said."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str = "_id"
    text: str = "text"
    title: str | None = "title"
    """Put before the text, with a space, where the table has such a column and it is not empty."""


class _Table(BaseModel):
    """A table that `prepare` reads whole, whatever it holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    path: str = Field(min_length=1)
    """A file, a directory (searched to its depths) or a glob; a local path or any fsspec or pyarrow URL."""
    format: Literal["parquet", "jsonl", "csv", "tsv", "trec"] = "parquet"
    """csv: with quotes, tabs between the fields where the name ends in .tsv; tsv: tabs, and no quotes."""
    header: tuple[str, ...] | None = Field(default=None, strict=False)
    """tsv only: the columns' names, for files that have no line with them."""

    @model_validator(mode="after")
    def _header_goes_with_tsv(self) -> Self:
        if self.header is not None and self.format != "tsv":
            raise ValueError(
                f"header goes with format tsv; {self.format} tables name their columns themselves"
            )
        return self


class PairsConfig(_Table):
    """The candidates to prepare: ids, and texts where no table of texts is given."""

    columns: ColumnNames = ColumnNames()


class TextsConfig(_Table):
    """The texts of queries or passages, by id."""

    columns: TextColumns = TextColumns()

    @field_validator("format")
    @classmethod
    def _holds_texts(cls, value: str) -> str:
        if value == "trec":
            raise ValueError("a TREC run holds no texts")
        return value
