"""The run: what one shard leaves in the output directory."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.tables.input.cleaning import is_utf8
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import Kind, check_version, stamped
from pipeline.tables.output.sealed import Stamp
from pipeline.tables.schema import RAW_SCORE, RUN_COLUMNS, run_schema

RUN_TAG, TREC_RUN = "rayrank", "run.trec"
MENDED = "start its job again with --check-bytes, which does what is damaged again"


def write_shard(
    output: Directory, name: str, ranked: pa.Table, rejects: pa.Table, more_columns: Sequence[str] = ()
) -> dict[str, Stamp]:
    """Write run/NAME.parquet and, where there are any, rejects/NAME.parquet. Same tables, same bytes.

    Gives what was written.

    ranked: RUN_COLUMNS, the columns of scores and ranks named by more_columns, and kept (a struct), rows as
    they shall stand.
    """
    ids_and_kept = (ranked.schema.field(column).type for column in ("query_id", "passage_id", "kept"))
    query_id, passage_id, kept_type = ids_and_kept
    more = [ranked.schema.field(column) for column in more_columns]
    schema = run_schema(query_id, passage_id, more, kept_type)
    kept = ranked["kept"].combine_chunks().flatten()
    columns = [ranked[column] for column in (*RUN_COLUMNS, *more_columns)]
    data = parquet_bytes(pa.table([*columns, *kept], schema=schema), "run")
    written = {run_file(name): output.write(run_file(name), data)}
    if rejects.num_rows:
        file = rejects_file(name)
        written[file] = output.write(file, parquet_bytes(rejects, "rejects"))
    return written


def run_file(name: str) -> str:
    """Of a shard, by its name in the output."""
    return f"run/{name}.parquet"


def rejects_file(name: str) -> str:
    """Likewise. A shard without rejects has none."""
    return f"rejects/{name}.parquet"


def write_trec_run(
    output: Directory,
    shards: Iterable[tuple[str, Stamp]],
    target: Directory | None = None,
    name: str = TREC_RUN,
) -> Stamp:
    """Join the run's files to run.trec: query Q0 passage rank score tag, a line a candidate.

    The score is the raw one, of a cascade 1 / rank: readers of such files, trec_eval first of all, order by
    it alone. target: where `name` is written; None: the output, of a job that has checked its ids. Raises
    InputError for a file that is not as it was written, or an id that a TREC file can't hold.
    """
    with (target or output).writing(name) as stream:
        for file, stamp in shards:
            table = read_run_file(output, file, stamp)
            if target is not None:
                _check_ids(table, partial(_row_of, f"{output.url}/{file}"), "")
            for line in _trec_lines(table):
                stream.write(line.encode())
    return stream.stamp


def _row_of(file: str, row: int) -> str:
    return f"{file} row {row + 1}"


def check_trec_ids(table: pa.Table) -> None:
    """Raises InputError for an id that a TREC file, whose fields are parted by blanks, has no room for.

    table: with `file` and `row`.
    """

    def place(row: int) -> str:
        return "{file} row {row}".format(**table.slice(row, 1).select(["file", "row"]).to_pylist()[0])

    _check_ids(table, place, "; set output.trec_run to false")


def _check_ids(table: pa.Table, place: Callable[[int], str], way_out: str) -> None:
    """place: of a row of the table, for people."""
    for column in ("query_id", "passage_id"):
        for number, value in enumerate(table[column].to_pylist()):
            data = value if isinstance(value, bytes) else str(value).encode()
            if data.split() != [data] or not is_utf8(data):
                raise InputError(
                    f"{place(number)}: {column} {value!r} is empty, has blanks or is no text, which a TREC"
                    f" run can't hold{way_out}"
                )


def read_run_file(output: Directory, file: str, stamp: Stamp) -> pa.Table:
    """A shard's part of the run. Raises InputError where it is not as it was written."""
    return written_table(output.read(file), f"{output.url}/{file}", stamp, "run", MENDED)


def read_rejects_file(output: Directory, file: str, stamp: Stamp) -> pa.Table:
    """A shard's rejects. Raises likewise."""
    return written_table(output.read(file), f"{output.url}/{file}", stamp, "rejects", MENDED)


def written_table(data: bytes | None, place: str, stamp: Stamp, kind: Kind, way_out: str) -> pa.Table:
    """The table that a file of our own holds; data: None where the file is gone.

    Raises InputError where it holds other bytes than were written, or is of another kind or version.
    """
    if data is None:
        raise InputError(f"{place}: is missing, though its marker says that it was written; {way_out}")
    if not stamp.fits(data):
        raise InputError(f"{place}: is damaged, it holds other bytes than its marker says; {way_out}")
    try:
        table = pq.read_table(io.BytesIO(data), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{place}: is damaged: {str(error).rstrip('.')}; {way_out}") from error
    check_version(table.schema, place, kind, f"{way_out[0].upper()}{way_out[1:]}", needed=True)
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
    table = table.replace_schema_metadata(stamped(table.schema, kind).metadata)
    pq.write_table(table, stream, compression="zstd", write_page_checksum=True)
    return stream.getvalue()
