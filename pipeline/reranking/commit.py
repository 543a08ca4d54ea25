"""What a shard leaves behind after its last level: its part of the run, its scores, its marker."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.job_record import check_not_removed
from pipeline.ranking import in_rank_order, original_ranks, top
from pipeline.reranking.cascade import Level, with_run_columns
from pipeline.reranking.shard import Job, OpenShard
from pipeline.reranking.training_rows import training_rows
from pipeline.tables.candidates import beyond_top_k
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.done_marker import mark_done
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.output.markers import Counts, ShardReport
from pipeline.tables.output.run import write_shard
from pipeline.tables.output.score_table import distinct_queries, write_scores
from pipeline.tables.output.statistics import MOVERS, Distribution, Mover, RankChanges
from pipeline.tables.output.training_rows import training_rows_file


def commit(done: OpenShard, job: Job) -> ShardReport:
    """Write a shard that all levels have scored: its data first, its marker last.

    Raises OutputError where the output was removed meanwhile, instead of making half of another.
    """
    config, name = job.config, done.shard.name
    levels = config.cascade
    output = Directory(config.output.path)
    check_not_removed(output)
    ranked = _ranked(done, levels)
    kept = top(ranked, config.depth)
    columns = [column for level in levels for column in level.score_table_columns]
    files = write_scores(output, name, done.hashes, done.results.select(columns))
    files |= write_shard(output, name, kept, done.rejects, config.run_columns)
    counts = _counts(done, kept, levels)
    if config.output.training_rows is not None:
        taught = training_rows(ranked, done.shard, job, config.output.training_rows)
        if taught.rows:
            file = training_rows_file(name)
            files[file] = output.write(file, taught.data)
        counts = counts.model_copy(update={"training_rows": taught.rows, "no_training_row": taught.left_out})
    last = f"{levels[-1].prefix}score"
    report = ShardReport(
        format_version=FORMAT_VERSION,
        job=job.identity,
        name=name,
        fingerprint=done.shard.fingerprint,
        counts=counts,
        finished=datetime.now(UTC),
        scores=_distribution(ranked, last),
        best_scores=_distribution(top(ranked, 1), last),
        level_scores=tuple(_distribution(ranked, f"{level.prefix}score") for level in levels if level.under),
        rank_changes=RankChanges.of(ranked["original_rank"].to_numpy(), ranked["rank"].to_numpy()),
        movers=_movers(ranked),
        files=files,
        query_hashes=distinct_queries(done.hashes),
    )
    mark_done(output, report)
    return report


def _movers(ranked: pa.Table) -> tuple[Mover, ...]:
    """Of these queries, those whose first passage came from farthest below, the farthest first."""
    columns = ["query_id", "passage_id", "original_rank", "rank", "place"]
    ranked = ranked.select(columns)
    # A query has one row of each kind, and both tables have the queries in one order.
    firsts = ranked.filter(pc.equal(ranked["rank"], 1))
    formers = ranked.filter(pc.equal(ranked["original_rank"], 1))
    farthest = pc.sort_indices(firsts, [("original_rank", "descending"), ("place", "ascending")])[:MOVERS]
    pairs = zip(firsts.take(farthest).to_pylist(), formers.take(farthest).to_pylist(), strict=True)
    return tuple(
        Mover(
            query_id=_shown(first["query_id"]),
            first_id=_shown(first["passage_id"]),
            came_from=first["original_rank"],
            former_id=_shown(former["passage_id"]),
            fell_to=former["rank"],
            first_at=first["place"],
            former_at=former["place"],
        )
        for first, former in pairs
        if first["original_rank"] > 1
    )


def _shown(value: str | int | bytes) -> str:
    """An id, for people; bytes need be no text."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _counts(done: OpenShard, kept: pa.Table, levels: Sequence[Level]) -> Counts:
    cuts = [
        pc.greater(done.results[f"{level.prefix}{name}"], 0).fill_null(fill_value=False)
        for level in levels
        for name in ("query_cut", "passage_cut")
    ]
    first = done.counts[0]
    return Counts(
        queries=len(done.candidates["query_id"].unique()),
        pairs=done.candidates.num_rows,
        reused=first.reused,
        copies=first.copies,
        kept=kept.num_rows,
        beyond_top_k=beyond_top_k(done.shard, done.candidates, done.rejects),
        rejected=dict(Counter(done.rejects["reason"].to_pylist())),
        truncated=pc.sum(reduce(pc.or_, cuts)).as_py() or 0,
        tokens=sum(counts.tokens for counts in done.counts),
        padded_tokens=sum(counts.padded_tokens for counts in done.counts),
        encode_s=sum(counts.encode_s for counts in done.counts),
        score_s=sum(counts.score_s for counts in done.counts),
        levels=done.counts if levels[0].under else (),
    )


def _distribution(ranked: pa.Table, column: str) -> Distribution:
    return Distribution.of(ranked[column].drop_null().to_numpy())


def _ranked(done: OpenShard, levels: Sequence[Level]) -> pa.Table:
    """Every candidate with its results and its rank, best first."""
    candidates, results = done.candidates, with_run_columns(levels, done.results)
    columns = {"original_rank": pa.array(original_ranks(candidates["query_id"]))}
    columns |= {"place": pa.array(range(candidates.num_rows), pa.int64())}
    columns |= {name: results[name] for name in results.column_names}
    for name, column in columns.items():
        candidates = candidates.append_column(name, column)
    return candidates.take(in_rank_order(candidates["query_id"], candidates["rank"]))
