"""What the sources found for a shard of queries to its part of the candidate table.

OUTPUT/candidates/part-SHARD.parquet: query_id, query, passage_id, passage (no texts where none are asked
for), first_stage_rank (int32, from 1), first_stage_score (float32); of several sources NAME_rank and
NAME_score, null where that source did not find the passage; kept columns. A query's rows stand together in
the order of ranks, the queries in the order of the input.
OUTPUT/unmatched/part-SHARD.parquet: query_id of the queries for which no source found a passage
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.ranking import rank
from pipeline.retrieval.fusion import fuse
from pipeline.retrieval.plan import Job
from pipeline.retrieval.search import merged
from pipeline.retrieval.shards import WORK, Done, Files, Shard, read_shard, read_table
from pipeline.tables.output.format_version import stamped
from pipeline.tables.output.run import RUN_TAG, id_text, parquet_bytes

_STRETCH_ROWS = 16_384
"""Where each row gets a copy of its texts: an Arrow text array ends at 2 GiB."""


def hits_file(source: str, block: str, group: int) -> str:
    """Where a search leaves what it found for a shard of queries in a group of the passages' shards."""
    return f"{WORK}/{source}/hits-{block}-{group:06d}.parquet"


def merge(job: Job, block: str, groups: int) -> Done:
    """Write a part of the candidate table. Gives its rows, and the queries with and without any."""
    queries = read_shard(job.output, "queries", Shard.named(block))
    found = ranked(job, block, groups, queries["query_id"])
    part = f"part-{block}.parquet"
    with_any = np.zeros(queries.num_rows, bool)
    with_any[found["query"].to_numpy()] = True
    files: Files = {}
    if found.num_rows:
        with job.output.writing(f"candidates/{part}") as stream:
            schema = stamped(candidate_schema(job), "candidates")
            with pq.ParquetWriter(stream, schema, compression="zstd", write_page_checksum=True) as writer:
                for rows in _with_texts(job, found, queries):
                    writer.write_table(rows.select(schema.names).cast(schema))
        files[f"candidates/{part}"] = stream.stamp
    if not with_any.all():
        missing = queries.select(["query_id"]).filter(pa.array(~with_any))
        file = f"unmatched/{part}"
        files[file] = job.output.write(file, parquet_bytes(missing, "rejects"))
    counts = {
        "candidates": found.num_rows,
        "matched": int(with_any.sum()),
        "unmatched": int((~with_any).sum()),
    }
    return Done(counts, files)


def ranked(job: Job, block: str, groups: int, query_ids: pa.ChunkedArray) -> pa.Table:
    """The candidates of a shard of queries by their places: query, shard, row, passage_id, score, rank."""
    config = job.config
    lists = {source: found_by(job, source, block, groups, query_ids) for source in config.sources}
    if len(lists) == 1:
        return next(iter(lists.values())).filter(
            pc.less_equal(next(iter(lists.values()))["rank"], config.output.top_k)
        )
    fused = fuse(lists, config.fusion)
    fused = fused.take(pa.array(np.argsort(fused["query"].to_numpy(), kind="stable")))
    query = fused["query"]
    best = rank(fused.append_column("query_id", query), fused["score"].to_numpy(), config.output.top_k)
    return best.drop_columns("query_id")


def found_by(job: Job, source: str, block: str, groups: int, query_ids: pa.ChunkedArray) -> pa.Table:
    """The best of one source for a shard of queries, up to its own depth: the columns of `ranked`."""
    parts = [read_table(job.output, hits_file(source, block, group)) for group in range(groups)]
    if job.config.leave_out_self:
        parts = [_without_self(part, query_ids) for part in parts]
    return merged(parts, job.config.depth(source))


def candidate_schema(job: Job) -> pa.Schema:
    texts = job.config.output.texts
    fields = [
        ("query_id", job.id_type("queries")),
        *([("query", pa.string())] if texts else []),
        ("passage_id", job.id_type("passages")),
        *([("passage", pa.string())] if texts else []),
        ("first_stage_rank", pa.int32()),
        ("first_stage_score", pa.float32()),
    ]
    fields += [
        (name, pa.int32() if name.endswith("_rank") else pa.float32()) for name in job.config.source_columns
    ]
    return pa.schema([*fields, *job.kept])


def trec_lines_of(job: Job, source: str, block: str, groups: int) -> Iterator[str]:
    """Of what one source found for a shard of queries, while the work lies there."""
    query_ids = read_shard(job.output, "queries", Shard.named(block), ["query_id"])["query_id"]
    found = found_by(job, source, block, groups, query_ids)
    names = ["query_id", "passage_id", "first_stage_rank", "first_stage_score"]
    columns = [query_ids.take(found["query"]), *(found[name] for name in ("passage_id", "rank", "score"))]
    yield from trec_lines(pa.table(columns, names))


def trec_lines(part: pa.Table) -> Iterator[str]:
    """Of a part of the candidate table: query Q0 passage rank score tag."""
    names = ("query_id", "passage_id", "first_stage_rank", "first_stage_score")
    for query_id, passage_id, place, score in zip(*(part[name].to_pylist() for name in names), strict=True):
        # Nine digits tell every float32 from its neighbours.
        yield f"{id_text(query_id)} Q0 {id_text(passage_id)} {place} {score:.9g} {RUN_TAG}\n"


def _without_self(hits: pa.Table, query_ids: pa.ChunkedArray) -> pa.Table:
    own = query_ids.take(hits["query"])
    return hits.filter(pc.not_equal(own, hits["passage_id"]))


def _with_texts(job: Job, found: pa.Table, queries: pa.Table) -> Iterator[pa.Table]:
    """Some rows at a time, with ids, texts and kept columns. Reads each shard of passages once."""
    numbers, rows = found["shard"].to_numpy(), found["row"].to_numpy()
    kept = [f"kept.{field.name}" for field in job.kept]
    wanted = [*(["passage"] if job.config.output.texts else []), *kept]
    parts, places = [], []
    for number in np.unique(numbers) if wanted else ():
        at = np.flatnonzero(numbers == number)
        shard = read_shard(job.output, "passages", Shard.of(int(number)), wanted)
        parts.append(_large(shard).take(pa.array(rows[at])))
        places.append(at)
    passages = pa.concat_tables(parts) if parts else None
    order = np.argsort(np.concatenate(places)) if places else np.arange(0)
    for start in range(0, found.num_rows, _STRETCH_ROWS):
        some = found.slice(start, _STRETCH_ROWS)
        columns = {name: some[name] for name in some.column_names}
        columns |= {"first_stage_rank": some["rank"], "first_stage_score": some["score"]}
        if passages is not None:
            here = passages.take(pa.array(order[start : start + _STRETCH_ROWS]))
            columns |= {name.removeprefix("kept."): here[name] for name in here.column_names}
        mine = queries.select(["query_id", "query"]).take(some["query"])
        yield pa.table(columns | {"query_id": mine["query_id"], "query": mine["query"]})


def _large(table: pa.Table) -> pa.Table:
    """Texts of which there may be more than 2 GiB."""
    for at, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            table = table.set_column(at, field.name, table[field.name].cast(pa.large_string()))
    return table
