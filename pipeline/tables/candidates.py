"""Candidate tables: plan the shards of one, read one shard."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.tables.cleaning import clean
from pipeline.tables.config import InputConfig
from pipeline.tables.formats import csv, jsonl, parquet, trec
from pipeline.tables.layout import Layout
from pipeline.tables.shards import FileSurvey, Shard, Slice, cut_shards
from pipeline.tables.storage import SourceFile, check_unchanged, find_files

_SURVEY_THREADS = 8


class Format(Protocol):
    """A module in `formats/`."""

    SUFFIXES: tuple[str, ...]
    """Endings of the files that a directory is searched for, in lower case."""

    def survey(self, file: SourceFile, layout: Layout) -> FileSurvey:
        """Where the file's queries stand. Raises InputError for a file that is not what it should be."""

    def read(self, piece: Slice, layout: Layout, schema: pa.Schema) -> pa.Table:
        """The rows of a stretch of a file, of `layout.reading_schema(schema)`, every one of them."""


FORMATS: dict[str, Format] = {"parquet": parquet, "jsonl": jsonl, "csv": csv, "trec": trec}


@dataclass(frozen=True)
class Plan:
    """What there is to do, before anything is done."""

    shards: tuple[Shard, ...]
    schema: pa.Schema
    """Types of query_id, passage_id and the kept columns (a struct), the same in all files."""
    left_out: dict[str, str]
    """Files that are not read, with the reason."""


def plan_table(config: InputConfig, kept: dict[str, str], shard_pairs: int) -> Plan:
    """Read where the queries stand and cut the table into shards of whole queries.

    Reads query ids only where the format allows it (Parquet). Raises InputError, naming file and row or
    column, for whatever would make the job fail or lose rows later.
    """
    layout = Layout(config, kept)
    files, left_out = find_files(config.path, FORMATS[config.format].SUFFIXES)
    for texts in (config.queries, config.passages):
        if texts is not None:
            find_files(texts, ())
    schemas: list[pa.Schema] = []
    shards = tuple(cut_shards(_same_schema(_surveys(files, layout), schemas), shard_pairs))
    if not any(shard.pairs for shard in shards):
        raise InputError(f"{config.path}: holds no candidates")
    return Plan(shards, schemas[0], left_out)


def read_shard(
    shard: Shard, config: InputConfig, kept: dict[str, str], schema: pa.Schema
) -> tuple[pa.Table, pa.Table]:
    """The candidates of a shard that can be scored, and the rejects; see `schema` for both."""
    layout = Layout(config, kept)
    parts = []
    for piece in shard.slices:
        check_unchanged(piece.file, piece.identity)
        part = FORMATS[config.format].read(piece, layout, schema)
        parts.append(part.append_column("file", pa.array([piece.file] * part.num_rows, pa.string())))
    return clean(pa.concat_tables(parts).combine_chunks())


def _surveys(files: list[SourceFile], layout: Layout) -> Iterator[FileSurvey]:
    survey = FORMATS[layout.input.format].survey
    with ThreadPoolExecutor(_SURVEY_THREADS) as threads:
        yield from threads.map(lambda file: survey(file, layout), files)


def _same_schema(surveys: Iterator[FileSurvey], schemas: list[pa.Schema]) -> Iterator[FileSurvey]:
    """Pass the surveys on, refusing a file whose types differ from the first one's."""
    first: FileSurvey | None = None
    for survey in surveys:
        if first is None:
            first = survey
            schemas.append(survey.schema)
        elif survey.schema != first.schema:
            raise InputError(
                f"{survey.file.url}: columns are of other types ({_types(survey.schema)}) than in"
                f" {first.file.url} ({_types(first.schema)})"
            )
        yield survey


def _types(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema if field.type != pa.struct([]))
