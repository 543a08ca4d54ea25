"""The work on one shard: read and encode it, score it, commit it. Knows no Ray.

A shard is encoded by any process with a tokenizer, scored and committed by one that holds a replica. What
stands between these steps is an `EncodedShard` and a `ScoredShard`.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError, InputError, ScoringError, TooManyTokensError, fields_under
from pipeline.output import check_not_removed
from pipeline.ranking import original_ranks, rank, top
from pipeline.reranking.config import RerankConfig
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.results import Scored
from pipeline.tables.candidates import Plan, read_shard
from pipeline.tables.input.shards import Shard
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.output.markers import Counts, ShardReport, mark_done
from pipeline.tables.output.run import check_trec_ids, write_shard
from pipeline.tables.output.score_table import PreviousScores, distinct_queries, hash_pairs, write_scores
from pipeline.tables.output.statistics import Distribution, RankChanges
from pipeline.tables.schema import RAW_SCORE, result_schema


@dataclass(frozen=True)
class Job:
    """What every process needs to know of the job, besides its shards."""

    config: RerankConfig
    plan: Plan
    """Its shards may be left out: they travel one by one."""
    identity: str
    """Of the job's record, for the markers."""
    previous: Callable[[], PreviousScores] | None = None
    """How a process comes by the scores of a previous run, where the job reuses any."""


@dataclass(frozen=True)
class EncodedShard:
    """A shard that was read and tokenized, but for pairs whose scores are known from a previous run."""

    shard: Shard
    pairs: EncodedPairs
    """Those to score, in order."""
    candidates: pa.Table
    """All that can be scored, without their texts."""
    hashes: pa.Table
    """`hash_pairs` of the candidates."""
    results: pa.Table
    """A `result_schema` row a candidate; null where it has still to be scored."""
    rejects: pa.Table
    encode_s: float


@dataclass(frozen=True)
class ScoredShard:
    """An encoded shard with every candidate's result."""

    shard: Shard
    candidates: pa.Table
    hashes: pa.Table
    results: pa.Table
    """A `result_schema` row a candidate."""
    rejects: pa.Table
    counts: Counts
    """What scoring knows of them."""


def encode(shard: Shard, job: Job) -> EncodedShard:
    """Read a shard and tokenize it. Raises InputError for a file or a pair that can't be scored."""
    os.environ.setdefault("RAYON_NUM_THREADS", "1")  # the tokenizer would take every core of the machine
    start = time.monotonic()
    config, output = job.config, job.config.output
    candidates, rejects = read_shard(shard, config.input, output.keep_columns, job.plan)
    if output.trec_run:
        check_trec_ids(candidates)
    queries, passages = candidates["query"].to_pylist(), candidates["passage"].to_pylist()
    hashes = hash_pairs(queries, passages)
    known = _unknown(candidates, config.score_columns)
    if job.previous is not None:
        known = job.previous().find(hashes, config.score_columns)
    new = pc.indices_nonzero(known["score"].is_null())
    try:
        with fields_under("scorer"):
            pairs = _scorer(config.scorer).encode([(queries[at], passages[at]) for at in new.to_pylist()])
    except TooManyTokensError as error:
        raise ConfigError(f"shard_pairs {len(new)}: {error}; lower shard_pairs") from error
    except ScoringError as error:
        raise named(error, candidates.take(new)) from error
    return EncodedShard(
        shard=shard,
        pairs=pairs,
        candidates=candidates.drop_columns(["query", "passage"]),
        hashes=hashes,
        results=known,
        rejects=rejects,
        encode_s=time.monotonic() - start,
    )


def score(encoded: EncodedShard, scorer: Scorer) -> ScoredShard:
    """Raises InputError for a pair that has no score."""
    start = time.monotonic()
    try:
        scored = scorer.forward(encoded.pairs)
    except ScoringError as error:
        new = pc.indices_nonzero(encoded.results["score"].is_null())
        raise named(error, encoded.candidates.take(new)) from error
    new_results = _results(scored, scorer.shown(scored.scores), encoded.pairs.pairs, encoded.results.schema)
    counts = Counts(
        reused=encoded.results.num_rows - len(encoded.pairs),
        copies=scored.copies,
        tokens=scored.tokens,
        padded_tokens=scored.padded_tokens,
        encode_s=encoded.encode_s,
        score_s=time.monotonic() - start,
    )
    return ScoredShard(
        shard=encoded.shard,
        candidates=encoded.candidates,
        hashes=encoded.hashes,
        results=_filled(encoded.results, new_results),
        rejects=encoded.rejects,
        counts=counts,
    )


def commit(scored: ScoredShard, job: Job) -> ShardReport:
    """Rank a shard and write it: its data first, its marker last.

    Raises OutputError where the output was removed meanwhile, instead of making half of another.
    """
    config, name = job.config, scored.shard.name
    output = Directory(config.output.path)
    check_not_removed(output)
    results = scored.results
    ranked = _ranked(scored)
    kept = top(ranked, config.output.top_k)
    files = write_scores(output, name, scored.hashes, results)
    files |= write_shard(output, name, kept, scored.rejects, config.score_columns)
    cut = pc.or_(pc.greater(results["query_cut"], 0), pc.greater(results["passage_cut"], 0))
    counts = scored.counts.model_copy(
        update={
            "queries": len(scored.candidates["query_id"].unique()),
            "pairs": scored.candidates.num_rows,
            "kept": kept.num_rows,
            "rejected": dict(Counter(scored.rejects["reason"].to_pylist())),
            "truncated": pc.sum(cut).as_py() or 0,
        }
    )
    report = ShardReport(
        format_version=FORMAT_VERSION,
        job=job.identity,
        name=name,
        fingerprint=scored.shard.fingerprint,
        counts=counts,
        finished=datetime.now(UTC),
        scores=Distribution.of(ranked["score"].to_numpy()),
        best_scores=Distribution.of(top(ranked, 1)["score"].to_numpy()),
        rank_changes=RankChanges.of(ranked["original_rank"].to_numpy(), ranked["rank"].to_numpy()),
        files=files,
        query_hashes=distinct_queries(scored.hashes),
    )
    mark_done(output, report)
    return report


def named(error: ScoringError, candidates: pa.Table) -> InputError:
    """The same error by the pair's ids and its place in the input, which the scorer does not know."""
    ids = candidates.slice(error.index, 1).select(["query_id", "passage_id", "file", "row"]).to_pylist()[0]
    return InputError(
        f"{ids['file']} row {ids['row']}: query {ids['query_id']!r}, passage {ids['passage_id']!r}:"
        f" {error.reason}"
    )


@lru_cache(maxsize=1)
def _scorer(config: ScorerConfig) -> Scorer:
    """One tokenizer a process, however many shards it encodes."""
    return Scorer(config)


def _ranked(scored: ScoredShard) -> pa.Table:
    """Every candidate with its result and its rank, best first."""
    candidates, results = scored.candidates, scored.results
    columns = {"original_rank": pa.array(original_ranks(candidates["query_id"]))}
    columns |= {name: results[name] for name in results.column_names}
    for name, column in columns.items():
        candidates = candidates.append_column(name, column)
    raw = results[RAW_SCORE if RAW_SCORE in results.column_names else "score"]
    return rank(candidates, raw.to_numpy(), None)


def _unknown(candidates: pa.Table, more_scores: Sequence[str]) -> pa.Table:
    schema = result_schema(more_scores)
    return pa.table([pa.nulls(candidates.num_rows, field.type) for field in schema], schema=schema)


def _results(scored: Scored, shown: npt.NDArray[np.float32], pairs: pa.Table, schema: pa.Schema) -> pa.Table:
    """Of the pairs that were scored just now, by the columns of a result. shown: the scores to show."""
    raw, scores, windows = (np.atleast_2d(values.T) for values in (scored.scores, shown, scored.windows))
    columns = {"score": scores[-1], "window": windows[-1], RAW_SCORE: raw[-1]}
    columns |= {name: pairs[name] for name in ("query_cut", "passage_cut")}
    layers = [name for name in schema.names if name not in columns]  # none where there is one cutoff
    columns |= dict(zip(layers, scores[: len(layers)], strict=True))
    return pa.table({name: columns[name] for name in schema.names})


def _filled(known: pa.Table, new: pa.Table) -> pa.Table:
    """`known` with its empty rows taken from `new`, in order."""
    empty = known["score"].is_null().combine_chunks()
    columns = [
        pc.replace_with_mask(known[name].combine_chunks(), empty, new[name].combine_chunks())
        for name in known.column_names
    ]
    return pa.table(columns, schema=known.schema)
