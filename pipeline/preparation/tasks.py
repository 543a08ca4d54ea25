"""What the preparation's stages do, in processes of their own: read a file range, join, write a partition."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, TypeAdapter

from pipeline.errors import InputError, TemporaryError
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
from pipeline.tables.input.columns import ColumnNames
from pipeline.tables.input.shards import FileRange
from pipeline.tables.outage import wait_out
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import stamped
from pipeline.tables.output.run import parquet_bytes
from pipeline.tables.output.sealed import DamagedError, Stamp, sealed, unsealed
from pipeline.tables.schema import rejects_schema
from pipeline.tables.sources import Source, read

_READ = "_manifest/read"
_FILE_RANGE = TypeAdapter(FileRange)


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


def read_file_range(row: pa.Table, output: str, preparation: Preparation) -> Iterator[pa.Table]:
    """The rows of a stretch of a file, with the key of the shuffle that comes next."""
    wait_out(preparation.max_outage_s)
    at = row.to_pylist()[0]
    file_range, source = _FILE_RANGE.validate_json(at["file_range"]), preparation.source(at["field"])
    count = 0
    if isinstance(source.config, TextsConfig):
        kind = {"queries": "query", "passages": "passage"}[source.field]
        for columns in _texts(file_range, source, source.config, kind):
            count += len(columns["row"])
            yield keyed(
                text_rows({**columns, "file": _repeat(at["file"], columns)}, preparation.schema), f"{kind}_id"
            )
    else:
        next_id = "query_id" if preparation.passages is None else "passage_id"
        for columns in _candidates(file_range, preparation):
            count += len(columns["row"])
            yield keyed(
                candidate_rows({**columns, "file": _repeat(at["file"], columns)}, preparation.schema), next_id
            )
    counted = RowsRead(field=source.field, rows=count)
    Directory(output).write(f"{_READ}/{at['name']}.json", sealed(counted))


def rows_read(output: Directory) -> dict[str, int]:
    """Rows of candidates, queries and passages that were read, as their readers counted them."""
    counts: Counter[str] = Counter()
    for name in output.names(_READ):
        try:
            counted = unsealed(output.read(f"{_READ}/{name}") or b"", RowsRead)
        except DamagedError as error:
            raise TemporaryError(f"{output.url}/{_READ}/{name}: is damaged; start again") from error
        counts[counted.field] += counted.rows
    return dict(counts)


def join_passages(rows: pa.Table, preparation: Preparation) -> Iterator[pa.Table]:
    """The candidates of a partition with their passages, ready for the shuffle by query."""
    texts = Texts(rows, "passage", preparation.source("passages").files)
    for candidates in candidates_of(rows):
        yield keyed(texts.attach(candidates), "query_id")


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
        for stretch in chain([first], stretches):
            complete = texts.attach(stretch) if texts else stretch
            good = pc.is_null(complete["reason"])
            rejects.append(_rejects(complete.filter(pc.invert(good)), preparation))
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
    refused = pa.concat_tables(rejects)
    if refused.num_rows:
        file = f"rejects/{name}.parquet"
        files[file] = directory.write(file, parquet_bytes(refused, "rejects"))
    counts = Counter(refused["reason"].to_pylist())
    report = PartReport(name=name, written=written, queries=queries, rejected=dict(counts), files=files)
    return pa.table({"report": [report.model_dump_json()]})


def _candidates(file_range: FileRange, preparation: Preparation) -> Iterator[dict[str, Any]]:
    """Columns by our names; texts where the table holds them."""
    source, own = preparation.candidates, preparation.candidates.config.columns
    assert isinstance(own, ColumnNames)
    ours = {"query_id": own.query_id, "passage_id": own.passage_id}
    ours |= {} if preparation.queries else {"query": own.query}
    ours |= {} if preparation.passages else {"passage": own.passage}
    fields = preparation.schema.field("others").type
    for table, row in read(file_range, source, [*dict.fromkeys([*ours.values(), *preparation.others])]):
        others = [table[name].combine_chunks() for name in preparation.others]
        yield {
            **{name: table[theirs].combine_chunks() for name, theirs in ours.items()},
            "others": pa.StructArray.from_arrays(others, fields=list(fields))
            if others
            else pa.array([{}] * len(row), fields),
            "row": row,
        }


def _texts(file_range: FileRange, source: Source, config: TextsConfig, kind: str) -> Iterator[dict[str, Any]]:
    """Columns by our names. Raises InputError for a text without an id."""
    own = config.columns
    title = own.title if own.title in source.types else None
    for table, row in read(
        file_range, source, [*dict.fromkeys([own.id, own.text, *([title] if title else [])])]
    ):
        ids, text = (table[name].combine_chunks() for name in (own.id, own.text))
        if ids.null_count:
            number = row.filter(pc.is_null(ids))[0].as_py()
            raise InputError(f"{file_range.file} row {number}: a text without {own.id!r}")
        yield {
            f"{kind}_id": ids,
            kind: with_titles(table[title].combine_chunks(), text) if title else text,
            "row": row,
        }


def _output_rows(kept: pa.Table, preparation: Preparation) -> pa.Table:
    others = kept["others"].combine_chunks().flatten()
    columns = [kept[name] for name in ("query_id", "query", "passage_id", "passage")]
    return pa.table([*columns, *others], schema=preparation.output_schema)


def _rejects(refused: pa.Table, preparation: Preparation) -> pa.Table:
    """As `rerank` writes its own, so that one reader reads both."""
    files = [redacted(preparation.candidates.files[number].url) for number in refused["file"].to_pylist()]
    schema = rejects_schema(refused.schema.field("query_id").type, refused.schema.field("passage_id").type)
    columns = {name: refused[name] for name in schema.names if name not in ("file", "item")}
    columns |= {"file": pa.array(files, pa.string()), "item": pa.nulls(len(files), pa.int32())}
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _repeat(number: int, columns: dict[str, Any]) -> pa.Array:
    return pa.repeat(pa.scalar(number, pa.int32()), len(columns["row"]))
