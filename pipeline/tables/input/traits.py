"""What sets a table format apart, as data: config and readers ask for it, and know no format by name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Traits:
    """The defaults are those of files that hold all there is to know."""

    noun: str = "a table"
    """One of them, in messages."""
    holds_texts: bool = True
    """False: ids alone. `queries` and `passages` of the config name the files with their texts."""
    names_columns: bool = True
    """False: files may come without a line of column names, which `header` of the config then gives."""
    rows_name_columns: bool = False
    """Each row names its columns, as JSON's objects do: one that a row lacks is null, and the types of a
    column's values may differ, between rows and between files."""
    columns_are_fixed: bool = False
    """Its columns have names of their own: `columns` of the config has nothing to say."""
    first_stage_score: str = "first_stage_score"
    """Its column of the first stage's scores, where nothing else is said."""
    path_is_place: bool = True
    """False: `path` may be a name, such as a catalog's of its table, and says nothing of where files lie."""
    files_are_compared: bool = True
    """Whether the caller is to see that a file is still the planned one before `read`. False: `read` does."""
    extra: str | None = None
    """The extra of this package that installs what reads the format."""
