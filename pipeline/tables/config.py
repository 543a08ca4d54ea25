"""Where a table lies, of what format it is, and what its columns are called.

Which formats there are, and which fields go with which, is asked of the formats themselves.
"""

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from pipeline.tables.format import (
    Format,
    SnapshotFormat,
    candidate_format,
    candidate_formats,
    whole_format,
    whole_formats,
)
from pipeline.tables.input.columns import ColumnNames, TextColumns
from pipeline.tables.input.limits import Limits
from pipeline.tables.storage import absolute


class InputConfig(BaseModel):
    """The candidate table that `rerank` reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    path: str = Field(min_length=1)
    """A file, a directory (searched to its depths) or a glob; a local path or any fsspec or pyarrow URL.

    delta, lance: the table's URL. iceberg: its metadata.json, or catalog://CATALOG/NAMESPACE.TABLE.
    """
    format: str = "parquet"
    """Of candidate tables, the name of a module in `pipeline/tables/formats`."""
    version: int | None = Field(default=None, ge=0)
    """delta, iceberg (a snapshot's id), lance: null takes the latest. A job that has begun goes on with the
    version it began with."""
    top_k: PositiveInt | None = None
    """How many candidates of each query are reranked: the first stage's best that can be scored. Those beyond
    are left out of the run. Of trec the best are those of the highest scores, as trec_eval orders them; of
    the other formats those that stand first in the table. Null: all."""
    columns: ColumnNames = ColumnNames()
    """Not of trec and flag_embedding, whose columns have fixed names."""
    queries: str | None = None
    """trec only: the queries' texts, JSON lines (`_id`, `text`) or tab-separated."""
    passages: str | None = None
    """trec only: the passages' texts, JSON lines (`_id`, `title`, `text`) or tab-separated."""
    success_file: str | None = Field(default=None, pattern=r"^[^/]+$")
    """A file that the writer of the table puts into its directory last, such as Spark's _SUCCESS. Until it
    stands there a job ends with status 75 (try again later) and reads nothing. Null: what is there is taken
    for the whole table."""
    limits: Limits = Limits()
    """How large a thing in a file may be."""

    def for_workers(self) -> Self:
        """As processes that were started elsewhere must read it: a plan knows the table's own files."""
        texts = {"queries": self.queries, "passages": self.passages}
        return self.model_copy(update={name: path and absolute(path) for name, path in texts.items()})

    @field_validator("format")
    @classmethod
    def _is_known(cls, value: str) -> str:
        return _one_of(candidate_formats(), value)

    @model_validator(mode="after")
    def _texts_stand_apart_or_not(self) -> Self:
        if candidate_format(self.format).TRAITS.holds_texts:
            if self.queries or self.passages:
                known = candidate_formats().items()
                textless = _listed([name for name, module in known if not module.TRAITS.holds_texts])
                raise ValueError(
                    f"queries and passages go with format {textless}; {self.format} tables hold the texts"
                )
        elif not (self.queries and self.passages):
            raise ValueError(
                f"format {self.format} holds ids only: give queries and passages, the files with their texts"
            )
        return self

    @model_validator(mode="after")
    def _columns_name_what_has_names(self) -> Self:
        if self.columns != ColumnNames() and candidate_format(self.format).TRAITS.columns_are_fixed:
            raise ValueError(f"columns: those of format {self.format} have fixed names; leave it out")
        return self

    @model_validator(mode="after")
    def _versions_go_with_snapshots(self) -> Self:
        _check_version(self.format, self.version, self.success_file)
        return self


class WholeTableConfig(BaseModel):
    """A table that is read whole, whatever it holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    path: str = Field(min_length=1)
    """As of rerank's `input`: a file, a directory or a glob; of delta, iceberg and lance the table."""
    format: str = "parquet"
    """Of tables read whole, the name of a module in `pipeline/tables/formats`. csv: with quotes, or without
    them and with tabs where the name ends in .tsv; tsv: tabs and no quotes, whatever the name."""
    version: int | None = Field(default=None, ge=0)
    """As of rerank's `input`: of a delta, iceberg or lance table; null takes the latest."""
    success_file: str | None = Field(default=None, pattern=r"^[^/]+$")
    """As of rerank's `input`: a file that the table's writer puts into its directory last."""
    header: tuple[str, ...] | None = Field(default=None, strict=False)
    """tsv only: the columns' names, for files that have no line with them."""
    limits: Limits = Limits()
    """How large a thing in a file may be."""

    @field_validator("format")
    @classmethod
    def _is_known(cls, value: str) -> str:
        return _one_of(cls._known(), value)

    @classmethod
    def _known(cls) -> Mapping[str, Format]:
        return whole_formats()

    @model_validator(mode="after")
    def _fields_go_with_the_format(self) -> Self:
        _check_version(self.format, self.version, self.success_file)
        if self.header is not None and whole_format(self.format).TRAITS.names_columns:
            nameless = [name for name, module in whole_formats().items() if not module.TRAITS.names_columns]
            raise ValueError(
                f"header goes with format {_listed(nameless)}; {self.format} tables name their columns"
                " themselves"
            )
        return self


class PairsConfig(WholeTableConfig):
    """The candidates to prepare: ids, and texts where no table of texts is given."""

    columns: ColumnNames = ColumnNames()


class TextsConfig(WholeTableConfig):
    """The texts of queries or passages, by id."""

    columns: TextColumns = TextColumns()

    @classmethod
    def _known(cls) -> Mapping[str, Format]:
        return {name: module for name, module in whole_formats().items() if module.TRAITS.holds_texts}


def _check_version(format_name: str, version: int | None, success_file: str | None) -> None:
    known = [name for name, module in candidate_formats().items() if isinstance(module, SnapshotFormat)]
    if version is not None and format_name not in known:
        raise ValueError(f"version goes with {_listed(known)}; {format_name} files have none")
    if success_file is not None and format_name in known:
        raise ValueError(f"success_file goes with files; a version of {format_name} is always whole")


def _one_of(known: Mapping[str, Format], name: str) -> str:
    if name not in known:
        told = "; csv reads tabs where a file's name ends in .tsv" if name == "tsv" else ""
        raise ValueError(f"needs one of {_listed(list(known))}{told}")
    return name


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
