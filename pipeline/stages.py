"""What the job's stages do with one shard, in processes of their own: encode, score, commit.

A shard is ONE row of an Arrow table: its description as JSON, its columns folded into lists.
"""

import os
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import RerankConfig
from pipeline.errors import InputError, RayrankError, ScoringError
from pipeline.ranking import places, rank, top
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.encoding import EncodedPairs
from pipeline.tables.attempts import Attempts, Quarantined
from pipeline.tables.candidates import Plan, read_shard
from pipeline.tables.directory import Directory
from pipeline.tables.manifest import ShardReport, mark_done
from pipeline.tables.run import check_trec_ids, write_shard
from pipeline.tables.schema import score_columns
from pipeline.tables.shards import Shard
from pipeline.tables.statistics import Distribution, Movement


def encode_shard(row: pa.Table, config: RerankConfig, plan: Plan) -> pa.Table:
    """Read a shard and tokenize it."""
    return _survivable("encode", row, config, lambda: _encode(row, config, plan))


def _encode(row: pa.Table, config: RerankConfig, plan: Plan) -> pa.Table:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one core a task, there are many tasks
    start = time.monotonic()
    shard = _shard_of(row)
    candidates, rejects = read_shard(shard, config.input, config.output.keep_columns, plan)
    if config.output.trec_run:
        check_trec_ids(candidates)
    pairs = list(zip(candidates["query"].to_pylist(), candidates["passage"].to_pylist(), strict=True))
    try:
        encoded = _scorer(config.scorer).encode(pairs)
    except ScoringError as error:
        raise named(error, candidates) from error
    return pa.table(
        {
            "shard": row["shard"],
            "sequences": _fold(encoded.sequences),
            "inputs": _fold(encoded.inputs.to_struct_array()),
            "pairs": _fold(encoded.pairs.to_struct_array()),
            "candidates": _fold(candidates.drop_columns(["query", "passage"]).to_struct_array()),
            "rejects": _fold(rejects.to_struct_array()),
            "encode_s": pa.array([time.monotonic() - start]),
        }
    )


class ScoreShard:
    """The actor: one replica, its weights loaded before the first shard."""

    def __init__(self, config: RerankConfig) -> None:
        self._config = config
        # What fails here would reach the driver as the text of a dead actor; in a call it arrives as itself.
        self._failure: RayrankError | None = None
        try:
            self._scorer = Scorer(config.scorer)
            _ = self._scorer.model
        except RayrankError as error:
            self._failure = error

    def __call__(self, row: pa.Table) -> pa.Table:
        if self._failure is not None:
            raise self._failure
        return _survivable("score", row, self._config, lambda: self._score(row))

    def _score(self, row: pa.Table) -> pa.Table:
        start = time.monotonic()
        inputs, pairs = (pa.Table.from_struct_array(_unfold(row[name])) for name in ("inputs", "pairs"))
        encoded = EncodedPairs(_unfold(row["sequences"]), inputs, pairs)
        try:
            scored = self._scorer.forward(encoded)
        except ScoringError as error:
            raise named(error, pa.Table.from_struct_array(_unfold(row["candidates"]))) from error
        return pa.table(
            {
                "shard": row["shard"],
                "candidates": row["candidates"],
                "rejects": row["rejects"],
                "pairs": row["pairs"],
                "scores": _fold(_columns(scored.scores)),
                "windows": _fold(_columns(scored.windows)),
                "tokens": pa.array([scored.tokens]),
                "padded_tokens": pa.array([scored.padded_tokens]),
                "encode_s": row["encode_s"],
                "score_s": pa.array([time.monotonic() - start]),
            }
        )


def commit_shard(row: pa.Table, config: RerankConfig) -> pa.Table:
    """Rank a shard and write it: data first, marker last. The driver hears a report, or a quarantine."""
    row = _survivable("commit", row, config, lambda: _commit(row, config))
    return (
        row
        if "report" in row.column_names
        else pa.table({"report": [None], "quarantined": row["quarantined"]})
    )


def _commit(row: pa.Table, config: RerankConfig) -> pa.Table:
    shard = _shard_of(row)
    output = Directory(config.output.path)
    candidates = pa.Table.from_struct_array(_unfold(row["candidates"]))
    rejects = pa.Table.from_struct_array(_unfold(row["rejects"]))
    pairs = pa.Table.from_struct_array(_unfold(row["pairs"]))
    scores, windows = (_unfold(row[name]).flatten() for name in ("scores", "windows"))
    layer_scores = score_columns(config.scorer.cutoff_layers or ())
    more = {"query_cut": pairs["query_cut"], "passage_cut": pairs["passage_cut"], "window": windows[-1]}
    for name, column in {**more, **dict(zip(layer_scores, scores[: len(layer_scores)], strict=True))}.items():
        candidates = candidates.append_column(name, column)
    before = pa.array(places(candidates["query_id"]))
    every = rank(candidates.append_column("place", before), scores[-1].to_numpy(), None)
    ranked = top(every, config.output.top_k)
    write_shard(output, shard.name, ranked, rejects, layer_scores)
    numbers = {name: row[name][0].as_py() for name in ("tokens", "padded_tokens", "encode_s", "score_s")}
    report = ShardReport(
        name=shard.name,
        fingerprint=shard.fingerprint,
        queries=len(candidates["query_id"].unique()),
        pairs=candidates.num_rows,
        kept=ranked.num_rows,
        rejected=dict(Counter(rejects["reason"].to_pylist())),
        truncated=pc.sum(
            pc.or_(pc.greater(pairs["query_cut"], 0), pc.greater(pairs["passage_cut"], 0))
        ).as_py()
        or 0,
        finished=datetime.now(UTC),
        scores=Distribution.of(every["score"].to_numpy()),
        best_scores=Distribution.of(top(every, 1)["score"].to_numpy()),
        movement=Movement.of(every["place"].to_numpy(), every["rank"].to_numpy()),
        **numbers,
    )
    mark_done(output, report)
    return pa.table({"report": [report.model_dump_json()], "quarantined": [None]})


def _survivable(stage: str, row: pa.Table, config: RerankConfig, work: Callable[[], pa.Table]) -> pa.Table:
    """Do the work, unless processes have died of this shard before: it is passed on as quarantined then."""
    if "quarantined" in row.column_names:
        return row
    shard = _shard_of(row)
    attempts = Attempts(Directory(config.output.path), shard, stage)
    if not attempts.begin():
        return pa.table({"quarantined": [Quarantined.of(shard, stage).model_dump_json()]})
    result = work()
    attempts.survived()
    return result


@lru_cache(maxsize=1)
def _scorer(config: ScorerConfig) -> Scorer:
    """One tokenizer a worker process, however many shards it encodes."""
    return Scorer(config)


def _shard_of(row: pa.Table) -> Shard:
    return Shard.model_validate_json(row["shard"][0].as_py())


def _fold(array: pa.Array | pa.ChunkedArray) -> pa.ListArray:
    """A whole column as one value: a list, in a column of one row."""
    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return pa.ListArray.from_arrays(pa.array([0, len(whole)], pa.int32()), whole)


def _unfold(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks().flatten()


def _columns(values: npt.NDArray[Any]) -> pa.StructArray:
    """(rows,) or (rows, columns) as a struct of columns."""
    columns = [pa.array(column) for column in np.atleast_2d(values.T)]
    return pa.StructArray.from_arrays(columns, [str(number) for number in range(len(columns))])


def named(error: ScoringError, candidates: pa.Table) -> InputError:
    """The same error by the pair's ids and place, which the scorer does not know."""
    ids = candidates.slice(error.index, 1).select(["query_id", "passage_id", "file", "row"]).to_pylist()[0]
    return InputError(
        f"{ids['file']} row {ids['row']}: query {ids['query_id']!r}, passage {ids['passage_id']!r}:"
        f" {error.reason}"
    )
