"""Iceberg: the data files of one snapshot, as far as they are Parquet, without the rows that positional
deletes or deletion vectors (of format version 3) name. Equality deletes are refused.

A table is the URL of its metadata.json, or catalog://CATALOG/NAMESPACE.TABLE with a catalog of pyiceberg's
own configuration (.pyiceberg.yaml, PYICEBERG_CATALOG__...). Columns are matched by field id, in files that
have none by the table's name mapping. Those that a file lacks have the value of its partition, or their
default, or null.
"""

import zlib
from collections import defaultdict
from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import log
from pipeline.errors import InputError, NotThereError, RayrankError
from pipeline.tables.formats import parquet
from pipeline.tables.input.arrow_types import plain, plain_type, with_fields
from pipeline.tables.input.deleted_rows import DeletedRows, Positions
from pipeline.tables.input.files import open_input
from pipeline.tables.input.limits import DEFAULT_LIMITS
from pipeline.tables.input.parquet_rows import opened
from pipeline.tables.input.partitions import Partitions
from pipeline.tables.input.snapshot import Snapshot, data_files, library, number_of, with_names
from pipeline.tables.input.traits import Traits
from pipeline.tables.outage import waited_out
from pipeline.tables.storage import absolute, class_for

TRAITS = Traits(extra="iceberg", path_is_place=False)
scan, read = parquet.scan, parquet.read
scan_table, read_table = parquet.scan_table, parquet.read_table

CATALOG = "catalog://"
_FILE_IO = {"py-io-impl": "pyiceberg.io.fsspec.FsspecFileIO"}
"""The same credentials as for all other files."""
_NO_TABLE = {"NoSuchTableError", "NoSuchNamespaceError"}
"""Errors of pyiceberg, by name: it may not be installed."""
_TOLD_AS_TEXT = {
    *("string", "int", "long", "float", "double", "decimal", "boolean"),
    *("date", "timestamp", "timestamptz"),
}
_THREADS = 16
_DELETES = {"POSITION_DELETES, PARQUET", "POSITION_DELETES, PUFFIN"}
_VECTOR, _VECTOR_BEGIN = "deletion-vector-v1", b"\xd1\xd39d"
_WAY_OUT = (
    "Rewrite the data files: CALL system.rewrite_data_files(table => ...,"
    " options => map('delete-file-threshold', '1'))"
)


def snapshot(url: str, version: int | None) -> Snapshot:
    """Raises NotThereError where there is no Iceberg table, InputError for one that this can't read."""
    try:
        table = waited_out(lambda: _load(url), url)
        latest = table.current_snapshot()
        # The columns are those of the snapshot, whatever the table became since: a retry asks for its number.
        scan = table.scan(snapshot_id=latest.snapshot_id if version is None and latest else version)
        tasks = waited_out(lambda: list(scan.plan_files()), url)
        columns, taken = scan.projection(), scan.snapshot()
        schema = _schema(table, columns)
        if version is None and columns.schema_id != table.schema().schema_id:
            log.warning(
                "columns were changed since the last write: those of that write are read",
                table=url,
                now=", ".join(column.name for column in table.schema().fields),
            )
    except RayrankError:
        raise
    except Exception as error:  # each catalog's client has errors of its own
        what = f"not a readable Iceberg table: {str(error) or type(error).__name__}"
        if isinstance(error, FileNotFoundError) or type(error).__name__ in _NO_TABLE:
            raise NotThereError(url, what) from error
        if "equality deletes" in what:  # which the library refuses itself
            what = f"{what}. {_WAY_OUT}"
        raise class_for(error, InputError)(f"{url}: {what}") from error
    for task in tasks:
        _check_readable(url, task)
    deleted = zip(tasks, _deleted_rows(tasks), strict=True)
    files = data_files(
        (task.file.file_path, _elsewhere(table, columns, task.file), rows) for task, rows in deleted
    )
    return Snapshot(files, taken and taken.snapshot_id, schema)


def _check_readable(url: str, task: Any) -> None:
    """task: a FileScanTask. Raises InputError where its rows, or what deletes them, are not read here."""
    for each in task.delete_files:
        kind = f"{each.content.name}, {each.file_format.value}"
        if kind not in _DELETES:
            raise InputError(
                f"{url}: rows of {task.file.file_path} are deleted by {each.file_path} ({kind}), which is not"
                f" read here. {_WAY_OUT}"
            )
    if task.file.file_format.value != "PARQUET":
        raise InputError(
            f"{task.file.file_path}: is {task.file.file_format.value}, not Parquet, which is read here"
        )


def _deleted_rows(tasks: list[Any]) -> list[DeletedRows]:
    """Of the file of each task, what those delete files name that count for it: none is older than it."""
    deletes = {each.file_path: each.file_format.value for task in tasks for each in task.delete_files}
    with ThreadPoolExecutor(_THREADS) as threads:
        named = dict(
            zip(deletes, threads.map(_positions_by_file, *zip(*deletes.items(), strict=False)), strict=True)
        )
    none = np.zeros(0, np.int64)
    return [DeletedRows.at(np.unique(np.concatenate([none, *_of_file(task, named)]))) for task in tasks]


def _of_file(task: Any, named: dict[str, dict[str, list[Positions]]]) -> Iterator[Positions]:
    for each in task.delete_files:
        yield from named[each.file_path].get(task.file.file_path, [])


def _positions_by_file(url: str, file_format: str) -> dict[str, list[Positions]]:
    """What a delete file holds: data files by their paths, and which of their rows are deleted."""
    return _from_vectors(url) if file_format == "PUFFIN" else _from_rows(url)


def _from_vectors(url: str) -> dict[str, list[Positions]]:
    """One that a later file replaced names no row that its successor does not name."""
    with open_input(url, DEFAULT_LIMITS) as stream:
        content = stream.read()
    found = defaultdict[str, list[Positions]](list)
    try:
        for blob in library("pyiceberg.table.puffin", TRAITS).PuffinFile(content).footer.blobs:
            if blob.type == _VECTOR:
                cut = content[blob.offset : blob.offset + blob.length]
                vector = _vector(cut, blob.properties.get("cardinality"))
                found[blob.properties["referenced-data-file"]].append(vector)
    except (LookupError, ValueError) as error:
        raise InputError(f"{url}: not a readable file of deletion vectors: {error}. {_WAY_OUT}") from error
    if not found:  # its footer, which has no checksum, is damaged
        raise InputError(f"{url}: a delete file without a deletion vector. {_WAY_OUT}")
    return found


def _vector(blob: bytes, cardinality: str | None) -> Positions:
    """cardinality: how many rows it is told to have.

    Its form: https://iceberg.apache.org/puffin-spec/#deletion-vector-v1-blob-type
    """
    size = int.from_bytes(blob[:4], "big")
    vector, checksum = blob[4 : 4 + size], blob[4 + size :]
    if not vector.startswith(_VECTOR_BEGIN) or zlib.crc32(vector).to_bytes(4, "big") != checksum:
        raise ValueError("a vector is damaged")
    rows = library("pyroaring", TRAITS).BitMap64.deserialize(vector.removeprefix(_VECTOR_BEGIN))
    positions = np.array(rows.to_array(), np.int64)
    if cardinality not in (None, str(len(positions))):
        raise ValueError(f"a vector of {len(positions)} rows is told to have {cardinality}")
    if (positions < 0).any():
        raise ValueError("a vector names a row at 2^63 or above")
    return positions


def _from_rows(url: str) -> dict[str, list[Positions]]:
    found = defaultdict[str, list[Positions]](list)
    with opened(url, DEFAULT_LIMITS) as table:
        types = {each.name: plain_type(each.type) for each in table.file.schema_arrow}
        if types.get("file_path") != pa.string() or types.get("pos") not in (pa.int32(), pa.int64()):
            raise InputError(f"{url}: is no delete file: it needs file_path, a text, and pos, an integer")
        for batch in table.batches(range(table.file.num_row_groups), ["file_path", "pos"]):
            paths, positions = (plain(pa.chunked_array([batch[name]])) for name in ("file_path", "pos"))
            if paths.null_count or positions.null_count or pc.any(pc.less(positions, 0)).as_py():
                raise InputError(f"{url}: a delete file with a null or a negative position. {_WAY_OUT}")
            for path in pc.unique(paths):
                of_path = positions.filter(pc.equal(paths, path))
                found[path.as_py()].append(of_path.to_numpy().astype(np.int64))
    return found


def _load(url: str) -> Any:
    if url.startswith(CATALOG):
        name, _, identifier = url.removeprefix(CATALOG).partition("/")
        return library("pyiceberg.catalog", TRAITS).load_catalog(name).load_table(identifier)
    if not url.endswith(".metadata.json"):
        raise InputError(
            f"{url}: an Iceberg table is named by its metadata file (.../metadata/N-....metadata.json) or as"
            f" {CATALOG}CATALOG/NAMESPACE.TABLE"
        )
    return library("pyiceberg.table", TRAITS).StaticTable.from_metadata(absolute(url), _FILE_IO)


def _elsewhere(table: Any, columns: Any, file: Any) -> Partitions:
    """As text, the values of columns that a data file may lack: those of its partition, else the defaults."""
    values = {
        each.field_id: each.initial_default for each in columns.fields if each.initial_default is not None
    }
    values |= {each.source_id: file.partition[at] for at, each in _identities(table.specs()[file.spec_id])}
    # A column by which later, or earlier, files are parted is null in one that is not parted by it.
    others = {each.source_id for spec in table.specs().values() for _, each in _identities(spec)}
    values = dict.fromkeys(others - values.keys()) | values
    to_text = library("pyiceberg.transforms", TRAITS).IdentityTransform().to_human_string
    return {
        each.name: None if values[each.field_id] is None else to_text(each.field_type, values[each.field_id])
        for each in columns.fields
        if each.field_id in values and (_is_text(each) or values[each.field_id] is None)
    }


def _identities(spec: Any) -> Iterator[tuple[int, Any]]:
    """The partition fields whose values files may leave to the table's metadata, with their places."""
    return ((at, each) for at, each in enumerate(spec.fields) if str(each.transform) == "identity")


def _is_text(column: Any) -> bool:
    """Whether a value of the table's metadata can be told as text that is cast to the column's type."""
    return str(column.field_type).partition("(")[0] in _TOLD_AS_TEXT


def _schema(table: Any, columns: Any) -> pa.Schema:
    """As Arrow. Null is forbidden to columns, and fields in them, that files may lack and whose values
    `_elsewhere` can't tell.
    """
    fields = library("pyiceberg.schema", TRAITS).index_by_id(columns)
    elsewhere = {each.source_id for spec in table.specs().values() for _, each in _identities(spec)}
    elsewhere |= {number for number, each in fields.items() if each.initial_default is not None}
    elsewhere -= {each.field_id for each in columns.fields if _is_text(each)}
    mapping = table.name_mapping()
    names = {} if mapping is None else dict(_names(mapping.root))
    return pa.schema(_mapped(each, names, elsewhere) for each in columns.as_arrow())


def _names(mapping: list[Any]) -> Iterator[tuple[int, list[str]]]:
    """Of columns, and of the fields in them, by their numbers."""
    for each in mapping:
        if each.field_id is not None:
            yield each.field_id, each.names
        yield from _names(each.fields)


def _mapped(column: pa.Field, names: dict[int, list[str]], elsewhere: Set[int]) -> pa.Field:
    mapped = column.with_type(with_fields(column.type, lambda each: _mapped(each, names, elsewhere)))
    number = number_of(column)
    mapped = mapped.with_nullable(column.nullable and number not in elsewhere)
    return with_names(mapped, names[number]) if number in names else mapped
