"""What a first stage will do: its tables, its sources, what makes two starts the same job. No Ray here."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.job_record import JobRecord, known_versions
from pipeline.retrieval.config import RetrieveConfig, scorer_field
from pipeline.tables.apart import check_apart
from pipeline.tables.config import TextsConfig
from pipeline.tables.input.arrow_types import common_type
from pipeline.tables.input.layout import require_columns
from pipeline.tables.input.shards import FileRange
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.sources import Source, scan

Kind = Literal["passages", "queries"]
KINDS: tuple[Kind, Kind] = ("passages", "queries")
ID = {"passages": "passage_id", "queries": "query_id"}
TEXT = {"passages": "passage", "queries": "query"}


QUERIES_A_SHARD = 1024
"""What is searched for at once: the matrix products of a GPU and of a CPU have reached their speed."""


@dataclass(frozen=True)
class Job:
    """What every process needs to know."""

    config: RetrieveConfig
    """Its paths absolute."""
    passages: Source
    queries: Source
    models: tuple[tuple[str, str], ...] = ()
    """The config's fields that name a model, each with the fingerprint of its weights and files."""
    by_cosine: tuple[str, ...] = ()
    """The dense sources whose embeddings must be normalized before their inner product is what compares."""
    auto: tuple[str, ...] = ()
    """The dense sources whose `dtype: auto` was settled for all processes: each looks whether its device
    agrees."""
    reused: dict[str, str] = field(default_factory=dict)
    """Dense source to the source whose embeddings it takes, of the first stage at `config.reuse`."""
    identity: str = ""
    """Of its record, by which its tasks' markers know it."""

    @property
    def output(self) -> Directory:
        return Directory(self.config.output.path)

    def table(self, kind: Kind) -> Source:
        return self.passages if kind == "passages" else self.queries

    def id_type(self, kind: Kind) -> pa.DataType:
        source = self.table(kind)
        return source.types[source.ids[0]]

    def depth(self, source: str) -> int:
        """Passages a query to search for: one more where one may be left out."""
        return self.config.depth(source) + self.config.leave_out_self

    def shard_rows(self, kind: Kind) -> int:
        """Rows of a shard, at most."""
        return self.config.shard_passages if kind == "passages" else QUERIES_A_SHARD

    def read_together(self, kind: Kind) -> Iterator[tuple[FileRange, ...]]:
        """What one task reads: no more than fits into a shard, since a shard of each small file would cost
        more than its rows.
        """
        return self.table(kind).together(self.shard_rows(kind))

    @property
    def kept(self) -> pa.StructType:
        """The passages' columns that are passed through, by their names in the table."""
        keep = self.config.output.keep_columns
        return pa.struct([(name, self.passages.types[theirs]) for name, theirs in keep.items()])

    def for_workers(self) -> "Job":
        """Without what may be long and no task needs: its file range travels apart."""
        passages, queries = (
            replace(source, file_ranges=(), range_rows=(), skipped={})
            for source in (self.passages, self.queries)
        )
        return replace(self, passages=passages, queries=queries)


def plan(config: RetrieveConfig) -> Job:
    """Raises InputError, naming file and column, for tables that can't be read; and as `scorers.find`."""
    kept = list(config.output.keep_columns.values())
    passages, queries = _scan(config.passages, "passages", kept), _scan(config.queries, "queries", [])
    require_columns(config.passages.path, kept, list(passages.types), "output.keep_columns")
    if config.leave_out_self:
        passages, queries = _with_same_ids(passages, queries)
    else:
        check_apart(passages, queries, "; if the queries are passages themselves: leave_out_self=true")
    output = config.output.model_copy(update={"path": Directory(config.output.path).url})
    reuse = config.reuse and Directory(config.reuse).url
    sources, models, by_cosine = dict(config.sources), [], []
    for name, dense in config.dense.items():
        from pipeline.retrieval import scorers  # noqa: PLC0415  (torch comes with it)

        found = scorers.find(name, dense, config.actors.place(dense.scorer))
        models.append((scorer_field(name), found.fingerprint))
        by_cosine += [name] if found.by_cosine else []
        placed = dense.model_copy(update={"scorer": found.config})
        sources[name] = sources[name].model_copy(update={"dense": placed})
    config = config.model_copy(update={"output": output, "reuse": reuse, "sources": sources})
    return Job(config, passages, queries, tuple(models), tuple(by_cosine))


def record_of(job: Job) -> JobRecord:
    """What makes two starts the same first stage."""
    several = any(len(ranges) > 1 for kind in KINDS for ranges in job.read_together(kind))
    # Earlier versions read each file alone, to other shards.
    reading = {"small_files": "read together"} if several else {}
    return JobRecord(
        format_version=FORMAT_VERSION,
        command="retrieve",
        config=job.config.determining_fields() | reading,
        models=dict(job.models),
        files={file.url: file.identity for source in (job.passages, job.queries) for file in source.files},
        shards=-(-job.queries.rows // QUERIES_A_SHARD),
        pairs=job.queries.rows * job.config.output.top_k,
        versions=known_versions({source.field: source.version for source in (job.passages, job.queries)}),
    )


def _with_same_ids(passages: Source, queries: Source) -> tuple[Source, Source]:
    """Their ids in the type that they have in common."""
    theirs, ours = (source.types[source.ids[0]] for source in (passages, queries))
    common = common_type(theirs, ours)
    if common is None:
        raise InputError(
            f"leave_out_self: ids of queries are {ours}, those of passages {theirs}: no query is a passage;"
            " write both in one type, or set leave_out_self to false"
        )
    return passages.with_type(passages.ids[0], common), queries.with_type(queries.ids[0], common)


def _scan(config: TextsConfig, field: Kind, kept: list[str]) -> Source:
    own = config.columns
    # The default title is taken where there is one; one that was asked for must be there.
    asked = [own.title] if own.title and own.optional_title is None else []
    return scan(config, field, [own.id, own.text, *asked], kept)
