"""What a table's columns are called."""

from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator


class ColumnNames(BaseModel):
    """Our names on the left, the table's on the right."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    query_id: str = "query_id"
    """The query's id: a text, or a whole number."""
    query: str = "query"
    """The query's text."""
    passage_id: str = "passage_id"
    """The passage's id: a text, or a whole number."""
    passage: str = "passage"
    """The passage's text."""
    candidates: str = "candidates"
    """Nested tables only (a row a query): the list of structs that hold passage_id and passage."""

    @model_validator(mode="after")
    def _query_and_passage_differ(self) -> Self:
        for one, other in (("query", "passage"), ("query_id", "passage_id")):
            if getattr(self, one) == getattr(self, other):
                raise ValueError(f"{one} and {other} are both column {getattr(self, one)!r}")
        return self


class TextColumns(BaseModel):
    """Of a table of texts: our names on the left, the table's on the right; BEIR's where nothing is said."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    id: str = "_id"
    """The id."""
    text: str = "text"
    """The text."""
    title: str | None = "title"
    """Put before the text, with a space, where the table has such a column and it is not empty."""

    @model_validator(mode="after")
    def _title_is_no_other_column(self) -> Self:
        for name in ("id", "text"):
            if self.title == getattr(self, name):
                raise ValueError(
                    f"{name} and title are both column {self.title!r}: set title to another, or null"
                )
        return self

    @property
    def optional_title(self) -> str | None:
        """The title's name where a table may do without: one that was asked for must be there."""
        return None if "title" in self.model_fields_set else self.title
