"""What a table's columns are called."""

from pydantic import BaseModel, ConfigDict


class ColumnNames(BaseModel):
    """Our names on the left, the table's on the right."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    query_id: str = "query_id"
    query: str = "query"
    passage_id: str = "passage_id"
    passage: str = "passage"
    candidates: str = "candidates"
    """Nested tables only (a row a query): the list of structs that hold passage_id and passage."""


class TextColumns(BaseModel):
    """Of a table of texts: our names on the left, the table's on the right; BEIR's where nothing is said."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    id: str = "_id"
    text: str = "text"
    title: str | None = "title"
    """Put before the text, with a space, where the table has such a column and it is not empty."""

    @property
    def optional_title(self) -> str | None:
        """The title's name where a table may do without: one that was asked for must be there."""
        return None if "title" in self.model_fields_set else self.title
