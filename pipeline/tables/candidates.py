"""Candidate tables: plan the shards of one, read one shard."""

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.ranking import first_stage_order, original_ranks
from pipeline.redaction import redacted
from pipeline.tables.config import InputConfig
from pipeline.tables.format import SnapshotFormat, advised, candidate_format
from pipeline.tables.input.arrow_rows import wanted_columns
from pipeline.tables.input.cleaning import clean
from pipeline.tables.input.column_types import ColumnTypes
from pipeline.tables.input.files import SourceFile, find_file, known_by, unchanged
from pipeline.tables.input.layout import Layout
from pipeline.tables.input.needed_columns import ColumnsOfTable
from pipeline.tables.input.shards import FileScan, Shard, cut_shards
from pipeline.tables.input.sought import SoughtQueries
from pipeline.tables.input.texts_beside import unusable_texts
from pipeline.tables.schema import FIRST_STAGE_SCORE
from pipeline.tables.table_files import TableVersion, directory_of, table_files

_SCAN_THREADS, _SCANNED_AT_ONCE = 32, 1024


@dataclass(frozen=True)
class Plan:
    """What there is to do, before anything is done."""

    shards: tuple[Shard, ...]
    schema: pa.Schema
    """Types of query_id, passage_id and the kept columns (a struct), the same in all files."""
    beside: tuple[SourceFile, ...]
    """Other files that the output depends on: those with the texts, where the table holds ids alone."""
    declared: pa.Schema | None
    """The columns of a table that declares them; `Layout.declared`."""
    root: str
    """`Layout.root`, which a process that was started elsewhere could not tell."""
    skipped: dict[str, str]
    """Files that are not read, with the reason."""
    found: frozenset[str] = frozenset()
    """Of the query ids that were sought, those that the table has."""
    found_in: tuple[int, ...] = ()
    """The shards that hold them."""
    needed_score: str | None = None
    """The kept column in which each candidate must have the first stage's score, to be scored."""
    version: TableVersion | None = None
    """Of a table that has versions."""

    def identities(self) -> dict[str, str]:
        """The files that the output depends on, with their identities."""
        file_ranges = {
            file_range.file: file_range.identity for shard in self.shards for file_range in shard.file_ranges
        }
        return file_ranges | {file.url: file.identity for file in self.beside}


def plan_table(
    config: InputConfig,
    kept: dict[str, str],
    shard_pairs: int,
    sought: Collection[str] = (),
    needed_score: str | None = None,
    digests: Mapping[str, str] | None = None,
) -> Plan:
    """Read where the queries stand and cut the table into shards of whole queries.

    sought: query ids, as text, to look out for. needed_score: as `Plan` has it. digests: of files whose
    content is known, by their urls. Reads query ids only where the format allows it (Parquet).
    Raises InputError, naming file and row or column, for what would make the job fail or lose rows later, as
    far as ids and types tell it.
    """
    table_format = candidate_format(config.format)
    table = table_files(config, "input", config.columns.query_id)
    if digests:
        known = [known_by(file, digests[file.url]) if file.url in digests else file for file in table.files]
        table = replace(table, files=known)
    root = directory_of(config) or ""
    layout = _layout(config, kept, table.schema, root)
    if table.schema is not None:
        table = table.read_as(wanted_columns(table.schema, layout))
    if table_format.TRAITS.rows_name_columns:  # a column that a row lacks is null, one of a path is forgotten
        _check_partitions(table.files, list(kept.values()))
    texts = tuple(find_file(url) for url in (config.queries, config.passages) if url is not None)
    names = {"query_id": config.columns.query_id, "passage_id": config.columns.passage_id} | kept
    types = ColumnTypes(names, lenient=table_format.TRAITS.rows_name_columns)
    skipped = dict(table.skipped)
    seen = SoughtQueries(sought)
    columns = ColumnsOfTable()
    scans = map(columns.look, _scans(table.files, config, layout, skipped))
    looked_at = map(seen.look, map(types.add, scans))
    theirs = not isinstance(table_format, SnapshotFormat)
    shards = tuple(cut_shards(looked_at, shard_pairs, config.top_k, names_are_theirs=theirs))
    if not columns.has_candidates:
        raise InputError(f"{config.path}: holds no candidates")
    if lacking := columns.lacking():
        file, error = lacking
        raise advised(error, file, config.format, config.columns.query_id, "input")
    if needed_score is not None:
        types.check_scores(needed_score, config.path)
    return Plan(
        shards=shards,
        schema=types.schema(),
        beside=texts,
        declared=table.schema,
        root=root,
        skipped=skipped,
        found=frozenset(seen.found),
        found_in=seen.shards(shards),
        needed_score=needed_score,
        version=TableVersion.of(config, table.version),
    )


def read_shard(
    shard: Shard, config: InputConfig, kept: dict[str, str], plan: Plan
) -> tuple[pa.Table, pa.Table]:
    """The candidates of a shard that are to be scored, in the first stage's order, and the rejects; see
    `schema` for both.
    """
    with ExitStack() as texts:
        for file in plan.beside:
            texts.enter_context(unchanged(file.url, file.identity))
        return _read_shard(shard, config, kept, plan)


def _read_shard(
    shard: Shard, config: InputConfig, kept: dict[str, str], plan: Plan
) -> tuple[pa.Table, pa.Table]:
    table_format = candidate_format(config.format)
    layout, compared = _layout(config, kept, plan.declared, plan.root), table_format.TRAITS.files_are_compared
    parts = []
    for file_range in shard.file_ranges:
        with unchanged(file_range.file, file_range.identity) if compared else nullcontext():
            part = table_format.read(file_range, layout, plan.schema)
        name = redacted(file_range.file)
        parts.append(part.append_column("file", pa.array([name] * part.num_rows, pa.string())))
    try:
        rows = pa.concat_tables(parts).combine_chunks()
    except pa.ArrowInvalid as error:  # of kept columns, which lie in one: a column of texts may have pieces
        files = ", ".join(file_range.file for file_range in shard.file_ranges)
        raise InputError(
            f"{files}: the columns to keep have more than 2 GiB of text in {shard.name}, too much for one"
            " shard. Lower shard_pairs, or keep fewer columns"
        ) from error
    candidates, rejects = clean(rows, plan.needed_score)
    _check_balance(shard, candidates, rejects)
    if shard.index == 0:  # each line of the texts that can't be used is told once
        rejects = pa.concat_tables([rejects, unusable_texts(layout, rejects.schema)])
    return _first_stage_best(candidates, config.top_k), rejects


def read_ids(
    shard: Shard, config: InputConfig, kept: dict[str, str], plan: Plan, rejects: pa.Table | None
) -> pa.Table:
    """`query_id` and `passage_id` of the candidates that `read_shard` gives, in the same order.

    rejects: those that it gave, None of none. Of a table of ids alone they tell which candidates have no
    text: the files with the texts are not read again.
    """
    textless = config.model_copy(update={"queries": None, "passages": None, "top_k": None})
    candidates, _ = read_shard(shard, textless, kept, plan)
    if rejects is not None:
        refused = set(_places(rejects))
        kept_here = [place not in refused for place in _places(candidates)]
        candidates = candidates.filter(pa.array(kept_here, pa.bool_()))
    return _up_to(candidates, config.top_k).select(["query_id", "passage_id"])


def _places(rows: pa.Table) -> Iterator[tuple[str, int, int | None]]:
    """Where each row stands in the input."""
    return zip(*(rows[column].to_pylist() for column in ("file", "row", "item")), strict=True)


def beyond_top_k(shard: Shard, candidates: pa.Table, rejects: pa.Table) -> int:
    """How many candidates `top_k` left out of what `read_shard` gave."""
    return shard.candidates - _pairs_read(shard, candidates, rejects)


def _first_stage_best(candidates: pa.Table, top_k: int | None) -> pa.Table:
    """The best top_k of each query, best first: by scores where the format tells them, else as they stand."""
    if FIRST_STAGE_SCORE in candidates.column_names:
        best_first = first_stage_order(
            *(candidates[name] for name in ("query_id", "passage_id", FIRST_STAGE_SCORE))
        )
        candidates = candidates.take(best_first).drop_columns(FIRST_STAGE_SCORE)
    return _up_to(candidates, top_k)


def _up_to(candidates: pa.Table, top_k: int | None) -> pa.Table:
    """Each query's first top_k."""
    if top_k is None:
        return candidates
    return candidates.filter(pa.array(original_ranks(candidates["query_id"]) <= top_k))


def _layout(config: InputConfig, kept: dict[str, str], declared: pa.Schema | None, root: str) -> Layout:
    return Layout(config.columns, kept, declared, config.queries, config.passages, config.limits, root)


def _check_balance(shard: Shard, candidates: pa.Table, rejects: pa.Table) -> None:
    """Every pair that was counted for the plan is here once, to be scored or refused."""
    pairs_read = _pairs_read(shard, candidates, rejects)
    if pairs_read != shard.candidates:
        files = ", ".join(file_range.file for file_range in shard.file_ranges)
        raise InputError(
            f"{files}: {shard.name} was planned with {shard.candidates} pairs, and {pairs_read} were read"
        )


def _pairs_read(shard: Shard, candidates: pa.Table, rejects: pa.Table) -> int:
    # The lines of texts among the rejects are no pairs.
    files = pa.array([redacted(file_range.file) for file_range in shard.file_ranges], pa.string())
    refused = pc.sum(pc.is_in(rejects["file"], value_set=files)).as_py() or 0
    return int(candidates.num_rows + refused)


def _check_partitions(files: list[SourceFile], names: list[str]) -> None:
    """Raises InputError where the paths of some files have one of the columns, and those of others don't."""
    for name in names:
        having = next((file for file in files if name in file.partitions), None)
        lacking = next((file for file in files if name not in file.partitions), None)
        if having and lacking:
            raise InputError(
                f"{lacking.url}: no directory {name}=... in its path, as in {having.url}; output.keep_columns"
                " asks for it"
            )


def _scans(
    files: list[SourceFile], config: InputConfig, layout: Layout, skipped: dict[str, str]
) -> Iterator[FileScan]:
    """Of the files that hold rows; `skipped` gets the others."""
    table_format = candidate_format(config.format)

    def scan_one(file: SourceFile) -> FileScan | None:
        try:
            return table_format.scan(file, layout)
        except InputError as error:
            raise advised(error, file.url, config.format, config.columns.query_id, "input") from error

    def scan_all(group: list[SourceFile]) -> list[tuple[SourceFile, FileScan | None]]:
        return [(file, scan_one(file)) for file in group]

    with ThreadPoolExecutor(_SCAN_THREADS) as threads:
        for start in range(0, len(files), _SCANNED_AT_ONCE):  # not to hold the scans of all
            chunk = files[start : start + _SCANNED_AT_ONCE]
            step = max(1, len(chunk) // (4 * _SCAN_THREADS))  # a file alone costs less than a thread's turn
            groups = [chunk[at : at + step] for at in range(0, len(chunk), step)]
            # All of them before the first is used: threads that wait for each other's turns are slow.
            for file, scan in chain.from_iterable(list(threads.map(scan_all, groups))):
                if scan is None:
                    skipped[file.url] = "holds no rows"
                else:
                    yield scan
