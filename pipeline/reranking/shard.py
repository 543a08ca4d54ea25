"""What becomes of one shard, in processes of their own: encoded by a task, scored and written by an actor.

A shard is ONE row of an Arrow table: its description as JSON, its columns folded into lists.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import (
    ConfigError,
    InputError,
    RayrankError,
    ScoringError,
    TooManyTokensError,
    fields_under,
)
from pipeline.ranking import original_ranks, rank, top
from pipeline.reranking.config import RerankConfig
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.scorer import Scored
from pipeline.tables.candidates import Plan, read_shard
from pipeline.tables.input.shards import Shard
from pipeline.tables.output.attempts import MAX_ATTEMPTS, Attempts, Quarantined
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.markers import ShardReport, mark_done
from pipeline.tables.output.run import check_trec_ids, write_shard
from pipeline.tables.output.score_table import PreviousScores, distinct_queries, hash_pairs, write_scores
from pipeline.tables.output.statistics import Distribution, RankChanges
from pipeline.tables.schema import result_schema, score_columns

Previous = Callable[[], PreviousScores] | None
"""How a process comes by the scores of a previous run, where the job reuses any."""


def encode_shard(row: pa.Table, config: RerankConfig, plan: Plan, previous: Previous) -> pa.Table:
    """Read a shard and tokenize it, but for pairs whose scores are known from a previous run.

    A shard of which processes have died in this stage is given up: `quarantined` tells.
    """
    attempts = Attempts(Directory(config.output.path), _shard_of(row), "encode")
    made = attempts.made()
    if made >= MAX_ATTEMPTS:
        return _quarantined(row, "encode")
    attempts.begin(made)
    encoded = _encode(row, config, plan, previous)
    attempts.survived()
    return encoded


def _encode(row: pa.Table, config: RerankConfig, plan: Plan, previous: Previous) -> pa.Table:
    os.environ.setdefault("RAYON_NUM_THREADS", "1")  # the tokenizer would take every core of the machine
    start = time.monotonic()
    output, layers = config.output, config.scorer.cutoff_layers or ()
    candidates, rejects = read_shard(_shard_of(row), config.input, output.keep_columns, plan)
    if output.trec_run:
        check_trec_ids(candidates)
    queries, passages = candidates["query"].to_pylist(), candidates["passage"].to_pylist()
    hashes, layer_scores = hash_pairs(queries, passages), score_columns(layers)
    results = previous().find(hashes, layer_scores) if previous else _unknown(candidates, layer_scores)
    new = pc.indices_nonzero(results["score"].is_null())
    try:
        with fields_under("scorer"):
            encoded = _scorer(config.scorer).encode([(queries[at], passages[at]) for at in new.to_pylist()])
    except TooManyTokensError as error:
        raise ConfigError(
            f"shard_pairs {len(new)}: {error}; lower shard_pairs", field="shard_pairs"
        ) from error
    except ScoringError as error:
        raise named(error, candidates.take(new)) from error
    return pa.table(
        {
            "shard": row["shard"],
            "sequences": _fold(encoded.sequences),
            "inputs": _fold(encoded.inputs.to_struct_array()),
            "pairs": _fold(encoded.pairs.to_struct_array()),
            "candidates": _fold(candidates.drop_columns(["query", "passage"]).to_struct_array()),
            "hashes": _fold(hashes.to_struct_array()),
            "results": _fold(results.to_struct_array()),
            "rejects": _fold(rejects.to_struct_array()),
            "encode_s": pa.array([time.monotonic() - start]),
        }
    )


class ScoreShard:
    """The actor: one replica, its weights loaded before the first shard.

    It scores a shard, ranks it and writes it, data first, marker last; one that comes unread it encodes
    before. The driver hears a report, or that the shard is given up. Called by two threads at once, it writes
    one shard while it scores the next.
    """

    def __init__(self, config: RerankConfig, plan: Plan, previous: Previous) -> None:
        self._config, self._plan, self._previous = config, plan, previous
        self._scoring, self._writing = Lock(), Lock()
        os.environ.setdefault("RAYON_NUM_THREADS", str(max(1, int(config.actors.num_cpus))))
        # What fails here would reach the driver as the text of a dead actor; in a call it arrives as itself.
        self._failure: RayrankError | None = None
        try:
            with fields_under("scorer"):
                self._scorer = Scorer(config.scorer)
                _ = self._scorer.model
        except RayrankError as error:
            self._failure = error

    def __call__(self, row: pa.Table) -> pa.Table:
        if self._failure is not None:
            raise self._failure
        with self._scoring:
            if row.column_names == ["shard"]:
                row = encode_shard(row, self._config, self._plan, self._previous)
            if "quarantined" in row.column_names:
                return row
            attempts = Attempts(Directory(self._config.output.path), _shard_of(row), "score")
            made = attempts.made()
            if made >= MAX_ATTEMPTS:
                return _quarantined(row, "score")
            if made:
                # A process died of this shard, or of the one beside it: nobody is beside it now.
                with self._writing:
                    attempts.begin(made)
                    return self._write(self._score(row), attempts)
            attempts.begin(made)
            scored = self._score(row)
        with self._writing:
            return self._write(scored, attempts)

    def _write(self, scored: pa.Table, attempts: Attempts) -> pa.Table:
        report = _commit(scored, self._config)
        attempts.survived()
        return pa.table({"report": [report.model_dump_json()], "quarantined": pa.nulls(1, pa.string())})

    def _score(self, row: pa.Table) -> pa.Table:
        start = time.monotonic()
        inputs, pairs, results = (_table(row[name]) for name in ("inputs", "pairs", "results"))
        encoded = EncodedPairs(_unfold(row["sequences"]), inputs, pairs)
        try:
            scored = self._scorer.forward(encoded)
        except ScoringError as error:
            new = pc.indices_nonzero(results["score"].is_null())
            raise named(error, _table(row["candidates"]).take(new)) from error
        results = _filled(results, _results(scored, pairs, results.column_names))
        return pa.table(
            {
                **{name: row[name] for name in ("shard", "candidates", "hashes", "rejects")},
                "results": _fold(results.to_struct_array()),
                "reused": pa.array([results.num_rows - pairs.num_rows]),
                "tokens": pa.array([scored.tokens]),
                "padded_tokens": pa.array([scored.padded_tokens]),
                "encode_s": row["encode_s"],
                "score_s": pa.array([time.monotonic() - start]),
            }
        )


def _commit(row: pa.Table, config: RerankConfig) -> ShardReport:
    shard = _shard_of(row)
    output = Directory(config.output.path)
    names = ("candidates", "results", "hashes", "rejects")
    candidates, results, hashes, rejects = (_table(row[name]) for name in names)
    more = {"original_rank": pa.array(original_ranks(candidates["query_id"]))}
    more |= {name: results[name] for name in results.column_names if name != "score"}
    for name, column in more.items():
        candidates = candidates.append_column(name, column)
    every = rank(candidates, results["score"].to_numpy(), None)
    ranked = top(every, config.output.top_k)
    write_scores(output, shard.name, hashes, results)
    write_shard(output, shard.name, ranked, rejects, score_columns(config.scorer.cutoff_layers or ()))
    numbers = ("reused", "tokens", "padded_tokens", "encode_s", "score_s")
    report = ShardReport(
        name=shard.name,
        fingerprint=shard.fingerprint,
        queries=len(candidates["query_id"].unique()),
        pairs=candidates.num_rows,
        kept=ranked.num_rows,
        rejected=dict(Counter(rejects["reason"].to_pylist())),
        truncated=pc.sum(
            pc.or_(pc.greater(results["query_cut"], 0), pc.greater(results["passage_cut"], 0))
        ).as_py()
        or 0,
        finished=datetime.now(UTC),
        scores=Distribution.of(every["score"].to_numpy()),
        best_scores=Distribution.of(top(every, 1)["score"].to_numpy()),
        rank_changes=RankChanges.of(every["original_rank"].to_numpy(), every["rank"].to_numpy()),
        query_hashes=distinct_queries(hashes),
        **{name: row[name][0].as_py() for name in numbers},
    )
    mark_done(output, report)
    return report


def _quarantined(row: pa.Table, stage: str) -> pa.Table:
    told = Quarantined.of(_shard_of(row), stage).model_dump_json()
    return pa.table({"report": pa.nulls(1, pa.string()), "quarantined": [told]})


@lru_cache(maxsize=1)
def _scorer(config: ScorerConfig) -> Scorer:
    """One tokenizer a process, however many shards it encodes."""
    return Scorer(config)


def _shard_of(row: pa.Table) -> Shard:
    return Shard.model_validate_json(row["shard"][0].as_py())


def _fold(array: pa.Array | pa.ChunkedArray) -> pa.ListArray:
    """A whole column as one value: a list, in a column of one row."""
    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return pa.ListArray.from_arrays(pa.array([0, len(whole)], pa.int32()), whole)


def _unfold(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks().flatten()


def _table(column: pa.ChunkedArray) -> pa.Table:
    return pa.Table.from_struct_array(_unfold(column))


def _unknown(candidates: pa.Table, layer_scores: Sequence[str]) -> pa.Table:
    schema = result_schema(layer_scores)
    return pa.table([pa.nulls(candidates.num_rows, field.type) for field in schema], schema=schema)


def _results(scored: Scored, pairs: pa.Table, names: Sequence[str]) -> pa.Table:
    """Of the pairs that were scored just now, by the columns of a result."""
    scores, windows = (np.atleast_2d(values.T) for values in (scored.scores, scored.windows))
    columns = {"score": scores[-1], "window": windows[-1]}
    columns |= {name: pairs[name] for name in ("query_cut", "passage_cut")}
    layer_scores = names[len(columns) :]  # none where there is one cutoff
    columns |= dict(zip(layer_scores, scores[: len(layer_scores)], strict=True))
    return pa.table({name: columns[name] for name in names})


def _filled(known: pa.Table, new: pa.Table) -> pa.Table:
    """`known` with its empty rows taken from `new`, in order."""
    empty = known["score"].is_null().combine_chunks()
    columns = [
        pc.replace_with_mask(known[name].combine_chunks(), empty, new[name].combine_chunks())
        for name in known.column_names
    ]
    return pa.table(columns, schema=known.schema)


def named(error: ScoringError, candidates: pa.Table) -> InputError:
    """The same error by the pair's ids and place, which the scorer does not know."""
    ids = candidates.slice(error.index, 1).select(["query_id", "passage_id", "file", "row"]).to_pylist()[0]
    return InputError(
        f"{ids['file']} row {ids['row']}: query {ids['query_id']!r}, passage {ids['passage_id']!r}:"
        f" {error.reason}"
    )
