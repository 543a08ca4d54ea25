"""What the preparation's stages do, in processes of their own: read a file range, join, write a partition."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, TypeAdapter

from pipeline.errors import TemporaryError
from pipeline.job_record import check_not_removed
from pipeline.preparation.joining import (
    Texts,
    candidate_rows,
    candidates_of,
    keyed,
    ordered_candidates,
    text_rows,
)
from pipeline.preparation.plan import Preparation
from pipeline.redaction import redacted
from pipeline.tables.config import TextsConfig
from pipeline.tables.input.beir import with_titles
from pipeline.tables.input.cleaning import Refusals
from pipeline.tables.input.columns import ColumnNames
from pipeline.tables.input.shards import FileRange
from pipeline.tables.outage import wait_out
from pipeline.tables.output.attempts import MAX_ATTEMPTS, Attempts, forget_attempts
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import stamped
from pipeline.tables.output.run import parquet_bytes
from pipeline.tables.output.sealed import DamagedError, Stamp, sealed, unsealed
from pipeline.tables.schema import rejects_schema
from pipeline.tables.sources import Source, read

_READ = "_manifest/read"
_FILE_RANGES = TypeAdapter(tuple[FileRange, ...])


class PartReport(BaseModel):
    """What became of one partition's candidates."""

    model_config = ConfigDict(frozen=True)

    name: str
    """Of its files: where its first row stands in the input, file and row."""
    written: int
    queries: int
    rejected: dict[str, int]
    files: dict[str, Stamp]
    """What was written, by the names in the output."""


class RowsRead(BaseModel):
    """Of a stretch of a file, as its reader counted them."""

    model_config = ConfigDict(frozen=True)

    field: str
    rows: int
    rejected: dict[str, int] = {}
    """Of texts. Candidates that can't be used travel on, and are in a `PartReport`."""
    files: dict[str, Stamp] = {}
    """The rejects, by the name in the output."""


def read_file_ranges(row: pa.Table, output: str, preparation: Preparation) -> Iterator[pa.Table]:
    """The rows of some stretches of files, with the key of the shuffle that comes next; rejected texts are
    written here.

    row: one of `Preparation.reads`.
    """
    wait_out(preparation.max_outage_s)
    at = row.to_pylist()[0]
    file_ranges, source = _FILE_RANGES.validate_json(at["file_ranges"]), preparation.source(at["field"])
    directory = Directory(output)
    attempts = Attempts(directory, SimpleNamespace(name=at["name"]), "read")
    if (made := attempts.made()) >= MAX_ATTEMPTS:  # Ray itself would try for ever
        forget_attempts(directory)  # the next start, on another machine perhaps, may do better
        raise TemporaryError(
            f"{file_ranges[0].file}: {made} processes died while they read it, out of memory perhaps. Start"
            " again on machines with more memory"
        )
    with attempts.counted(made):
        yield from _read(file_ranges, source, directory, at["name"], preparation)


def _read(
    file_ranges: Sequence[FileRange],
    source: Source,
    directory: Directory,
    name: str,
    preparation: Preparation,
) -> Iterator[pa.Table]:
    numbers = {file.url: number for number, file in enumerate(source.files)}
    count = 0
    rejects: list[pa.Table] = []
    for file_range in file_ranges:
        for rows, next_id in _rows(file_range, numbers[file_range.file], source, preparation):
            count += rows.num_rows
            if isinstance(source.config, TextsConfig):
                good = pc.is_null(rows["reason"])
                rejects.append(_rejects(rows.filter(pc.invert(good)), source))
                yield keyed(rows.filter(good), next_id)
            else:
                yield keyed(rows, next_id)
    files, rejected = _write_rejects(directory, name, rejects)
    counted = RowsRead(field=source.field, rows=count, rejected=rejected, files=files)
    directory.write(f"{_READ}/{name}.json", sealed(counted))


def _rows(
    file_range: FileRange, file: int, source: Source, preparation: Preparation
) -> Iterator[tuple[pa.Table, str]]:
    """Rows as `joining` has them, and the id that they are shuffled by next. file: its number."""
    schema = preparation.schema
    if isinstance(source.config, TextsConfig):
        kind = {"queries": "query", "passages": "passage"}[source.field]
        for columns, refusals in _texts(file_range, source, source.config, kind):
            yield text_rows({**columns, "file": _repeat(file, columns)}, kind, refusals, schema), f"{kind}_id"
    else:
        next_id = "query_id" if preparation.passages is None else "passage_id"
        for columns, refusals in _candidates(file_range, preparation):
            yield candidate_rows({**columns, "file": _repeat(file, columns)}, refusals, schema), next_id


def rows_read(output: Directory) -> list[RowsRead]:
    """The rows of candidates, queries and passages that were read, as their readers counted them."""
    counts = []
    for name in output.names(_READ):
        try:
            counts.append(unsealed(output.read(f"{_READ}/{name}") or b"", RowsRead))
        except DamagedError as error:
            raise TemporaryError(f"{output.url}/{_READ}/{name}: is damaged; start again") from error
    return counts


def join_passages(rows: pa.Table, preparation: Preparation) -> Iterator[pa.Table]:
    """The candidates of a partition with their passages, ready for the shuffle by query."""
    texts = Texts(rows, "passage", preparation.source("passages").files)
    for candidates in texts.attach(candidates_of(rows)):
        yield keyed(candidates, "query_id")


def write_part(rows: pa.Table, output: str, preparation: Preparation) -> pa.Table:
    """Write a partition's candidates and rejects; the driver hears a report."""
    wait_out(preparation.max_outage_s)
    texts = Texts(rows, "query", preparation.queries.files) if preparation.queries else None
    stretches = ordered_candidates(rows)
    first = next(stretches, None)
    if first is None:
        return pa.table({"report": pa.array([], pa.string())})
    name = f"part-{first['file'][0].as_py():06d}-{first['row'][0].as_py():012d}"
    written, queries, last_query = 0, 0, None
    rejects: list[pa.Table] = []
    directory, file = Directory(output), f"candidates/{name}.parquet"
    check_not_removed(directory)
    schema = stamped(preparation.output_schema, "candidates")
    with (
        directory.writing(file) as stream,
        pq.ParquetWriter(stream, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        whole = chain([first], stretches)
        for complete in chain.from_iterable(map(texts.attach, whole)) if texts else whole:
            good = pc.is_null(complete["reason"])
            rejects.append(_rejects(complete.filter(pc.invert(good)), preparation.candidates))
            kept = complete.filter(good)
            if kept.num_rows:
                ids = kept["query_id"].combine_chunks()
                queries += len(ids.unique()) - (ids[0].as_py() == last_query)
                last_query = ids[-1].as_py()
                written += kept.num_rows
                writer.write_table(_output_rows(kept, preparation))
    files = {file: stream.stamp}
    if not written:
        directory.remove_file(file)
        files = {}
    refused, counts = _write_rejects(directory, name, rejects)
    files |= refused
    report = PartReport(name=name, written=written, queries=queries, rejected=counts, files=files)
    return pa.table({"report": [report.model_dump_json()]})


def _candidates(file_range: FileRange, preparation: Preparation) -> Iterator[tuple[dict[str, Any], Refusals]]:
    """Columns by our names; texts where the table holds them. What the reader has against rows."""
    source, own = preparation.candidates, preparation.candidates.config.columns
    assert isinstance(own, ColumnNames)
    ours = {"query_id": own.query_id, "passage_id": own.passage_id}
    ours |= {} if preparation.queries else {"query": own.query}
    ours |= {} if preparation.passages else {"passage": own.passage}
    fields = preparation.schema.field("others").type
    names = {theirs: name for name, theirs in ours.items()} | {name: name for name in preparation.others}
    for rows in read(file_range, source, list(names)):
        table = rows.columns
        others = [table[name].combine_chunks() for name in preparation.others]
        columns = {
            **{name: table[theirs].combine_chunks() for name, theirs in ours.items()},
            "others": pa.StructArray.from_arrays(others, fields=list(fields))
            if others
            else pa.array([{}] * table.num_rows, fields),
            "row": rows.numbers,
        }
        yield columns, rows.refusals.renamed(names)


def _texts(
    file_range: FileRange, source: Source, config: TextsConfig, kind: str
) -> Iterator[tuple[dict[str, Any], Refusals]]:
    """Columns by our names, `title` among them where there is one. What the reader has against rows."""
    own = config.columns
    title = own.title if own.title in source.types else None
    names = {own.id: f"{kind}_id", **({title: "title"} if title else {}), own.text: kind}
    for rows in read(file_range, source, list(names)):
        columns = {ours: rows.columns[theirs].combine_chunks() for theirs, ours in names.items()}
        if title:
            columns[kind] = with_titles(columns["title"], columns[kind])
        yield columns | {"row": rows.numbers}, rows.refusals.renamed(names)


def _output_rows(kept: pa.Table, preparation: Preparation) -> pa.Table:
    others = kept["others"].combine_chunks().flatten()
    columns = [kept[name] for name in ("query_id", "query", "passage_id", "passage")]
    return pa.table([*columns, *others], schema=preparation.output_schema)


def _rejects(refused: pa.Table, source: Source) -> pa.Table:
    """As `rerank` writes its own, so that one reader reads both."""
    files = [redacted(source.files[number].url) for number in refused["file"].to_pylist()]
    schema = rejects_schema(refused.schema.field("query_id").type, refused.schema.field("passage_id").type)
    columns = {name: refused[name] for name in schema.names if name not in ("file", "item")}
    columns |= {"file": pa.array(files, pa.string()), "item": pa.nulls(len(files), pa.int32())}
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _write_rejects(
    directory: Directory, name: str, rejects: list[pa.Table]
) -> tuple[dict[str, Stamp], dict[str, int]]:
    """The file that was written, if any row was rejected, and reason to rows."""
    refused = [table for table in rejects if table.num_rows]
    if not refused:
        return {}, {}
    rows, file = pa.concat_tables(refused), f"rejects/{name}.parquet"
    stamp = directory.write(file, parquet_bytes(rows, "rejects"))
    return {file: stamp}, dict(Counter(rows["reason"].to_pylist()))


def _repeat(number: int, columns: dict[str, Any]) -> pa.Array:
    return pa.repeat(pa.scalar(number, pa.int32()), len(columns["row"]))
