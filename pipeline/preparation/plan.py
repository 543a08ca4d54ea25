"""What a preparation will do: its tables, how finely it shuffles them, the memory that takes. No Ray here."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from pipeline.config_file import flatten
from pipeline.errors import InputError
from pipeline.job_record import JobRecord, known_versions
from pipeline.preparation.config import PrepareConfig
from pipeline.preparation.joining import rows_schema
from pipeline.tables.apart import check_apart
from pipeline.tables.config import TextsConfig
from pipeline.tables.input.arrow_types import common_type
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.sources import Source, scan

_PARTITION_BYTES = 128 * 2**20
"""Of a shuffle, where there are not too many: about what an output file holds, uncompressed."""
_READ_ROWS = 50_000
"""Of small files, by one task."""
_MAX_PARTITIONS = 1000
"""A shuffle makes an object for each pair of a map task and a partition."""
BATCH_BYTES = 256 * 2**20
"""What a map task of a shuffle takes at a time."""
_OWN_COLUMNS = ("query_id", "query", "passage_id", "passage")


@dataclass(frozen=True)
class Preparation:
    """Before anything is done."""

    candidates: Source
    queries: Source | None
    passages: Source | None
    others: tuple[str, ...]
    """The candidates' columns besides ids and texts, which are passed through."""
    max_outage_s: float
    """`PrepareConfig.max_outage_s`, for every process."""

    @property
    def sources(self) -> tuple[Source, ...]:
        return tuple(
            source for source in (self.candidates, self.queries, self.passages) if source is not None
        )

    def source(self, field: str) -> Source:
        return next(source for source in self.sources if source.field == field)

    @property
    def schema(self) -> pa.Schema:
        """Of the rows that are shuffled: `joining`."""
        query_id, passage_id = (self.candidates.types[name] for name in self.candidates.ids)
        return rows_schema(query_id, passage_id, {name: self.candidates.types[name] for name in self.others})

    @property
    def output_schema(self) -> pa.Schema:
        return pa.schema(
            [*(self.schema.field(name) for name in _OWN_COLUMNS), *self.schema.field("others").type]
        )

    @property
    def by_passage_bytes(self) -> int:
        """What the first shuffle moves, where the passages are to be joined."""
        return self.candidates.size_bytes + self.passages.size_bytes if self.passages else 0

    @property
    def by_query_bytes(self) -> int:
        """What the second one moves: each candidate with a copy of its passage, and the queries."""
        copies = (
            self.candidates.rows * self.passages.size_bytes // max(1, self.passages.rows)
            if self.passages
            else 0
        )
        return self.candidates.size_bytes + copies + (self.queries.size_bytes if self.queries else 0)

    @property
    def task_bytes(self) -> int:
        """Memory of one task. Ray Data asks for twice what it shuffles; three times were seen to be taken."""
        moved = (self.by_passage_bytes, self.by_query_bytes)
        return 4 * max(BATCH_BYTES, *(size_bytes // partitions(size_bytes) for size_bytes in moved))

    def sizes(self, executor: str) -> dict[str, str]:
        """What it takes, to be told before it starts."""
        shuffled = max(self.by_passage_bytes, self.by_query_bytes)
        if executor == "here":
            return {"memory": f"about {_mib(shuffled)} of rows, all at once in this process"}
        return {
            "shuffle": f"about {_mib(shuffled)} at once, in {partitions(self.by_query_bytes)} partitions",
            "memory": f"up to {_mib(self.task_bytes)} a CPU; what the object store does not hold of the"
            " shuffle is spilled to disk",
        }

    def reads(self, fields: Collection[str]) -> list[dict[str, Any]]:
        """What there is to read of these tables, a row what one task reads."""
        return [
            {
                "name": f"{source.field}-{number:06d}",
                "field": source.field,
                "file_ranges": json.dumps([asdict(each) for each in ranges]),
            }
            for source in self.sources
            if source.field in fields
            for number, ranges in enumerate(source.together(_READ_ROWS))
        ]

    def for_workers(self) -> "Preparation":
        """Without what may be long and no task needs: its file range travels apart."""
        light = {
            source.field: replace(source, file_ranges=(), range_rows=(), skipped={})
            for source in self.sources
        }
        return replace(
            self,
            candidates=light["candidates"],
            queries=light.get("queries"),
            passages=light.get("passages"),
        )


def partitions(size_bytes: int) -> int:
    return min(_MAX_PARTITIONS, size_bytes // _PARTITION_BYTES + 1)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"


def plan(config: PrepareConfig) -> Preparation:
    """Raises InputError, naming file and column, for tables that don't fit together."""
    own = config.candidates.columns
    held = [
        name for name, texts in ((own.query, config.queries), (own.passage, config.passages)) if texts is None
    ]
    candidates = scan(config.candidates, "candidates", [own.query_id, own.passage_id, *held])
    used = {own.query_id, own.passage_id, *held}
    others = tuple(name for name in candidates.types if name not in used)
    for name in others:
        if name in _OWN_COLUMNS:
            raise InputError(
                f"{candidates.config.path}: column {name!r} would stand twice in the output; "
                + _way_out(name, config)
            )
    queries, candidates = _scan_texts(config.queries, "queries", candidates, own.query_id)
    passages, candidates = _scan_texts(config.passages, "passages", candidates, own.passage_id)
    check_apart(passages, queries)
    return Preparation(candidates, queries, passages, others, config.max_outage_s)


def _way_out(name: str, config: PrepareConfig) -> str:
    field = {"query": "queries", "passage": "passages"}.get(name)
    if field and getattr(config, field) is not None:
        return f"leave {field} out to take the texts from there, or rename the column"
    return "rename it, or name it in candidates.columns"


def _scan_texts(
    config: TextsConfig | None, field: str, candidates: Source, id_name: str
) -> tuple[Source | None, Source]:
    """The texts, and the candidates: the ids of both in the type that they have in common."""
    if config is None:
        return None, candidates
    own = config.columns
    # The default title is taken where there is one; one that was asked for must be there.
    asked = [own.title] if own.title and "title" in own.model_fields_set else []
    source = scan(config, field, [own.id, own.text, *asked])
    theirs, ours = source.types[own.id], candidates.types[id_name]
    kind = common_type(theirs, ours)
    if kind is None:
        raise InputError(
            f"{config.path}: column {own.id!r} is {theirs}, and {id_name!r} in {candidates.config.path} is"
            f" {ours}; ids must be of one type to be found: write both as text, or both as integers"
        )
    return source.with_type(own.id, kind), candidates.with_type(id_name, kind)


def record_of(config: PrepareConfig, preparation: Preparation) -> JobRecord:
    """What makes two starts the same preparation."""
    return JobRecord(
        format_version=FORMAT_VERSION,
        command="prepare",
        config=flatten(config.determining_fields()),
        models={},
        files={file.url: file.identity for source in preparation.sources for file in source.files},
        shards=partitions(preparation.by_query_bytes),
        pairs=preparation.candidates.rows,
        versions=known_versions({source.field: source.version for source in preparation.sources}),
    )
