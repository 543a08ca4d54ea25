"""Whether passages and queries lie apart, where each is a table read whole."""

from pipeline.errors import InputError
from pipeline.tables.input.columns import TextColumns
from pipeline.tables.sources import Source, named_for


def check_apart(passages: Source | None, queries: Source | None, way_out: str = "") -> None:
    """Raises InputError where one's path means files of the other, whose texts would count as both: the same
    file, or one whose name says it, beside files of other names.

    Columns of their own part queries and passages that stand in one file. way_out: what else may be done.
    """
    if passages is not None and queries is not None:
        if _id_and_text(passages) != _id_and_text(queries):
            return
        if passages.has_versions and (queries.config.format, queries.config.path) == (
            passages.config.format,
            passages.config.path,
        ):
            raise InputError(
                f"passages.path and queries.path: both are {passages.config.path}: each text there would be a"
                f" query and a passage. Give the queries a table, or columns, of their own{way_out}"
            )
        shared = {file.url for file in passages.files} & {file.url for file in queries.files}
        if shared:
            passages_more = len(passages.files) >= len(queries.files)
            folder, named = (passages, queries) if passages_more else (queries, passages)
            why = f"which {named.field}.path has too: each text there would be a query and a passage"
            raise _mixed(folder, shared, why, way_out)
    for source, other in ((passages, "queries"), (queries, "passages")):
        if source is not None:
            foreign = named_for(other, [file.url for file in source.files])
            if foreign and len(foreign) < len(source.files):
                why = f"which is named for {other}: each text there would be one of the {source.field}"
                raise _mixed(source, foreign, why, f"; if it holds {source.field}, rename it{way_out}")


def _mixed(folder: Source, foreign: set[str], why: str, way_out: str) -> InputError:
    others = [file.url for file in folder.files if file.url not in foreign]
    alone = f"{folder.field}.path={others[0]}" if others else "a file for passages, another for queries"
    if len(others) > 1:  # one of them would not be the whole table
        alone = f"{folder.field}.path as a glob or a folder of these {len(others)} files"
    return InputError(
        f"{folder.field}.path: {folder.config.path} has {min(foreign)}, {why}. Name the {folder.field} alone:"
        f" {alone}{way_out}"
    )


def _id_and_text(source: Source) -> tuple[str, str]:
    columns = source.config.columns
    assert isinstance(columns, TextColumns)
    return columns.id, columns.text
