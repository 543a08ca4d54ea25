"""The run: what one shard leaves in the output directory."""

import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.tables.input.cleaning import is_utf8
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import Kind, check_version, stamped
from pipeline.tables.schema import RAW_SCORE, RUN_COLUMNS, run_schema

RUN_TAG = "rayrank"


def write_shard(
    output: Directory, name: str, ranked: pa.Table, rejects: pa.Table, more_scores: Sequence[str] = ()
) -> None:
    """Write run/NAME.parquet and, where there are any, rejects/NAME.parquet. Same tables, same bytes.

    ranked: RUN_COLUMNS, the columns of scores named by more_scores, and kept (a struct), rows as they shall
    stand.
    """
    ids_and_kept = (ranked.schema.field(column).type for column in ("query_id", "passage_id", "kept"))
    query_id, passage_id, kept_type = ids_and_kept
    schema = run_schema(query_id, passage_id, more_scores, kept_type)
    kept = ranked["kept"].combine_chunks().flatten()
    columns = [ranked[column] for column in (*RUN_COLUMNS, *more_scores)]
    output.write(f"run/{name}.parquet", parquet_bytes(pa.table([*columns, *kept], schema=schema), "run"))
    if rejects.num_rows:
        output.write(f"rejects/{name}.parquet", parquet_bytes(rejects, "rejects"))


def read_run_shards(output: Directory) -> Iterator[tuple[str, pa.Table]]:
    """The tables of a run, each with its file, in the order of their shards."""
    for name in sorted(name for name in output.names("run") if not name.startswith("_")):
        yield f"{output.url}/run/{name}", _read_shard(output, name)


def write_trec_run(output: Directory, names: list[str]) -> None:
    """Join the run shards to run.trec: query Q0 passage rank score tag, a line a candidate.

    The score is the raw one: readers of such files, trec_eval first of all, order by it alone.
    """
    with output.writing("run.trec") as stream:
        for name in names:
            for line in _trec_lines(_read_shard(output, f"{name}.parquet")):
                stream.write(line.encode())


def check_trec_ids(table: pa.Table) -> None:
    """Raises InputError for an id that a TREC file, whose fields are parted by blanks, has no room for."""
    for column in ("query_id", "passage_id"):
        for number, value in enumerate(table[column].to_pylist()):
            data = value if isinstance(value, bytes) else str(value).encode()
            if data.split() != [data] or not is_utf8(data):
                place = table.slice(number, 1).select(["file", "row"]).to_pylist()[0]
                raise InputError(
                    f"{place['file']} row {place['row']}: {column} {value!r} is empty, has blanks or is no"
                    " text, which a TREC run can't hold; set output.trec_run to false"
                )


def _read_shard(output: Directory, file: str) -> pa.Table:
    data = output.read(f"run/{file}")
    if data is None:
        raise InputError(f"{output.url}/run/{file}: is gone, though its marker says that it was written")
    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{output.url}/run/{file}: is damaged: {error}; rerank again to another output.path"
        ) from error
    way_out = "Read it with the version that wrote it, or rerank again to another output.path"
    check_version(table.schema, f"{output.url}/run/{file}", "run", way_out, needed=False)
    return table


def _trec_lines(table: pa.Table) -> Iterator[str]:
    score = RAW_SCORE if RAW_SCORE in table.column_names else "score"
    columns = ("query_id", "passage_id", "rank", score)
    for query_id, passage_id, rank, score in zip(*(table[name].to_pylist() for name in columns), strict=True):
        # Nine digits tell every float32 from its neighbours.
        yield f"{id_text(query_id)} Q0 {id_text(passage_id)} {rank} {score:.9g} {RUN_TAG}\n"


def id_text(value: str | int | bytes) -> str:
    """An id as a TREC file has it."""
    return value.decode() if isinstance(value, bytes) else str(value)


def parquet_bytes(table: pa.Table, kind: Kind) -> bytes:
    """A Parquet file of one table, which says of what kind and version it is. Same table, same bytes."""
    stream = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(stamped(table.schema, kind).metadata), stream, compression="zstd"
    )
    return stream.getvalue()
