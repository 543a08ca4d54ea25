"""Texts as users have them to shards, with rejects: rows without an id or a text, and ids that come again."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from pipeline.errors import InputError
from pipeline.redaction import redacted
from pipeline.retrieval.plan import ID, TEXT, Job, Kind
from pipeline.retrieval.shards import Done, Files, Shard, read_shard, write_dropped, write_shard
from pipeline.tables.config import TextsConfig
from pipeline.tables.input.beir import with_titles
from pipeline.tables.input.cleaning import Refusals, is_utf8, valid_text
from pipeline.tables.input.shards import FileRange
from pipeline.tables.output.run import parquet_bytes
from pipeline.tables.schema import rejects_schema
from pipeline.tables.sources import Source, read

_SHARD_BYTES = 256 * 2**20
"""Of texts, where they are long."""
HASHES_AT_ONCE = 16_000_000
"""Of ids, among which the same one is looked for: bounds memory."""
_FILE_RANGES = TypeAdapter(tuple[FileRange, ...])

_Place = tuple[int, ...]
"""Of a row: its file and row in the input, its shard and row there."""


def read_file_ranges(job: Job, kind: Kind, number: int, file_ranges: str) -> Done:
    """Write the shards of some file ranges. Gives their names with their rows, how many texts are empty, and
    reason to rejects.
    """
    shards, rejected = dict[str, int](), Counter[str]()
    rejects: list[pa.Table] = []
    files: Files = {}
    empty = 0
    ranges = _FILE_RANGES.validate_json(file_ranges)
    every = chain.from_iterable(cleaned(job, kind, at, rejects) for at in ranges)
    for block, rows in enumerate(stretches(every, job.shard_rows(kind))):
        shard = Shard(number, block)
        files |= write_shard(job.output, kind, shard, _sorted(rows, kind))
        shards[shard.name] = rows.num_rows
        empty += pc.sum(pc.equal(pc.utf8_trim_whitespace(rows[TEXT[kind]]), "")).as_py() or 0
    if rejects:
        refused = pa.concat_tables(rejects)
        files |= _write_rejects(job, f"{kind}-{number:06d}", refused)
        rejected.update(refused["reason"].to_pylist())
    return Done({"shards": shards, "empty": empty, "rejected": dict(rejected)}, files)


def drop_repeated(job: Job, kind: Kind, shards: dict[str, int]) -> Done:
    """Find the rows whose id stands in an earlier one: the first one counts, in the order of the input.

    shards: names to rows.
    """
    first: dict[Any, _Place] = {}
    again: list[tuple[_Place, Any]] = []
    for rows in _of_equal_hashes(job, kind, shards):
        for id_, *here in zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True):
            place: _Place = tuple(here)
            earlier, later = sorted([first.get(id_, place), place])
            first[id_] = earlier
            if earlier != later:
                again.append((later, id_))
    again.sort(key=lambda row: row[0])
    if not again:
        none = pa.array([], pa.int64())
        return Done({"rejected": {}}, write_dropped(job.output, kind, none, none))
    columns = zip(*(place for place, _ in again), strict=True)
    file, row, shard, at = (pa.array(column, pa.int64()) for column in columns)
    files = write_dropped(job.output, kind, shard, at)
    reason, ids = f"duplicate_{ID[kind]}", pa.array([id_ for _, id_ in again], job.id_type(kind))
    refused = _rejects(job, kind, file, row, ids, {"reason": pa.array([reason] * len(again))})
    files |= _write_rejects(job, f"{kind}-duplicates", refused)
    return Done({"rejected": {reason: len(again)}}, files)


def text_hashes(texts: pa.ChunkedArray) -> pa.Array:
    """The content hash of each text."""
    digests = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts.to_pylist()]
    return pa.array(digests, pa.binary(16))


def cleaned(job: Job, kind: Kind, at: FileRange, rejects: list[pa.Table]) -> Iterator[pa.Table]:
    """The rows that can be used, with the columns of a shard; the others go to `rejects`."""
    source, id_name, text_name = job.table(kind), ID[kind], TEXT[kind]
    number = next(place for place, file in enumerate(source.files) if file.url == at.file)
    for ids, title, texts, kept, row, refusals in _columns(job, kind, source, at):
        for column, name in ((ids, id_name), (texts, text_name)):
            refusals.add(pc.is_null(column).to_numpy(zero_copy_only=False), f"null_{name}")
            if name == text_name and title is not None:  # which stands in the text by now
                refusals.add(~valid_text(title), "invalid_text", "title")
            refusals.add(~valid_text(column), "invalid_text", name)
        for name, column in kept.items():
            refusals.add(~valid_text(column), "invalid_text", name)
        good = refusals.good
        file = pa.array(np.full(len(row), number, np.int32))
        if not pc.all(good).as_py():
            safe = pc.if_else(pa.array(valid_text(ids)), ids, pa.scalar(None, ids.type))
            bad = pc.invert(good)
            why = {name: column.filter(bad) for name, column in refusals.columns.items()}
            rejects.append(_rejects(job, kind, file.filter(bad), row.filter(bad), safe.filter(bad), why))
        if job.config.output.trec_run:
            _check_trec_ids(ids.filter(good), row.filter(good), at.file, id_name)
        used = {id_name: ids.filter(good), text_name: texts.filter(good)}
        yield pa.table(
            {
                **used,
                "hash": text_hashes(used[text_name]),
                "id_hash": pa.array(_hashes(used[id_name])),
                "file": file.filter(good),
                "row": row.filter(good),
                **{f"kept.{name}": column.filter(good) for name, column in kept.items()},
            }
        )


def _check_trec_ids(ids: pa.Array, row: pa.Array, file: str, name: str) -> None:
    """Raises InputError for an id that a TREC file, whose fields are parted by blanks, has no room for."""
    for number, value in enumerate(ids.to_pylist()):
        data = value if isinstance(value, bytes) else str(value).encode()
        if data.split() != [data] or not is_utf8(data):
            raise InputError(
                f"{file} row {row[number].as_py()}: {name} {value!r} is empty, has blanks or is no text,"
                " which a TREC run can't hold; set output.trec_run to false"
            )


def _columns(
    job: Job, kind: Kind, source: Source, at: FileRange
) -> Iterator[tuple[pa.Array, pa.Array | None, pa.Array, dict[str, pa.Array], pa.Array, Refusals]]:
    """Ids, titles where there are any, texts with their titles, kept columns, row numbers, refusals."""
    assert isinstance(source.config, TextsConfig)
    own = source.config.columns
    title = own.title if own.title in source.types else None
    keep = job.config.output.keep_columns if kind == "passages" else {}
    fields = {own.id: ID[kind], **({title: "title"} if title else {}), own.text: TEXT[kind]}
    for ours, theirs in keep.items():
        fields.setdefault(theirs, ours)
    for rows in read(at, source, list(fields)):
        table = rows.columns
        ids, texts = (table[name].combine_chunks() for name in (own.id, own.text))
        titles = table[title].combine_chunks() if title else None
        if titles is not None:
            texts = with_titles(titles, texts)
        kept = {name: table[theirs].combine_chunks() for name, theirs in keep.items()}
        yield ids, titles, texts, kept, rows.numbers, rows.refusals.renamed(fields)


def stretches(tables: Iterator[pa.Table], most: int) -> Iterator[pa.Table]:
    """The same rows in tables of `most` rows, or of less where texts are long."""
    held: list[pa.Table] = []
    rows = size_bytes = 0
    for table in tables:
        for start in range(0, table.num_rows, max(1, min(most, 4096))):
            part = table.slice(start, max(1, min(most, 4096)))
            if held and (rows + part.num_rows > most or size_bytes + part.nbytes > _SHARD_BYTES):
                yield pa.concat_tables(held)
                held, rows, size_bytes = [], 0, 0
            held.append(part)
            rows, size_bytes = rows + part.num_rows, size_bytes + part.nbytes
    if held:
        yield pa.concat_tables(held)


def _sorted(rows: pa.Table, kind: Kind) -> pa.Table:
    """Passages by their ids; queries stay as they came."""
    order = [("passage_id", "ascending"), ("file", "ascending"), ("row", "ascending")]
    return rows.sort_by(order) if kind == "passages" else rows


def _hashes(ids: pa.Array) -> npt.NDArray[np.uint64]:
    plain = ids.cast(pa.int64(), safe=False) if pa.types.is_integer(ids.type) else ids.cast(pa.binary())
    hashes: npt.NDArray[np.uint64] = pd.util.hash_array(
        plain.to_numpy(zero_copy_only=False), categorize=False
    )
    return hashes


def _of_equal_hashes(job: Job, kind: Kind, shards: dict[str, int]) -> Iterator[pa.Table]:
    """Id, file, row, shard, place of the rows whose id hash several rows have.

    One part of all hashes is held at a time, those with one remainder: equal ids come in the same part.
    """
    parts = 1 + sum(shards.values()) // HASHES_AT_ONCE
    every = [Shard.named(name) for name in shards]
    for part in range(parts):
        hashes = [np.zeros(0, np.uint64)]
        for shard in every:
            here = read_shard(job.output, kind, shard, ["id_hash"], dropped=True)["id_hash"].to_numpy()
            hashes.append(here[here % parts == part])
        values, counts = np.unique(np.concatenate(hashes), return_counts=True)
        repeated = values[counts > 1]
        for shard in every if len(repeated) else ():
            rows = read_shard(job.output, kind, shard, [ID[kind], "file", "row", "id_hash"], dropped=True)
            at = np.flatnonzero(np.isin(rows["id_hash"].to_numpy(), repeated))
            number = pa.array(np.full(len(at), shard.number))
            found = rows.take(pa.array(at)).drop_columns("id_hash")
            yield found.append_column("shard", number).append_column("at", pa.array(at))


def _write_rejects(job: Job, name: str, rows: pa.Table) -> Files:
    file = f"rejects/{name}.parquet"
    return {file: job.output.write(file, parquet_bytes(rows, "rejects"))}


def _rejects(
    job: Job, kind: Kind, file: pa.Array, row: pa.Array, ids: pa.Array, why: dict[str, pa.Array]
) -> pa.Table:
    """As `rerank` writes its own, so that one reader reads both. why: `reason`, perhaps `field`."""
    urls = [redacted(job.table(kind).files[number].url) for number in file.to_pylist()]
    schema = rejects_schema(job.id_type("queries"), job.id_type("passages"))
    columns = {"file": pa.array(urls, pa.string()), "row": row, ID[kind]: ids, **why}
    nulls = {field.name: pa.nulls(len(urls), field.type) for field in schema if field.name not in columns}
    return pa.table([(columns | nulls)[name] for name in schema.names], schema=schema)
