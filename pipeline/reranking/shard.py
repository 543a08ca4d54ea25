"""The work on one shard: read it, then encode and score it, once a level. Knows no Ray.

A shard is encoded by any process with a tokenizer, scored by one that holds a replica. What stands between
these steps is an `OpenShard`, an `EncodedShard` and a `ScoredShard`; `commit` writes it after the last level.
"""

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError, InputError, ScoringError, TooManyTokensError
from pipeline.ranking import original_ranks
from pipeline.reranking import cascade
from pipeline.reranking.cascade import Level
from pipeline.reranking.config import RerankConfig
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.results import Scored
from pipeline.tables.candidates import Plan, read_shard
from pipeline.tables.input.shards import Shard
from pipeline.tables.output.markers import LevelCounts
from pipeline.tables.output.run import check_trec_ids
from pipeline.tables.output.score_table import PreviousScores, hash_pairs
from pipeline.tables.schema import RAW_SCORE, result_schema

_TOKENIZERS = 8
"""Kept by a process: the levels of a cascade, more than anyone has."""
_TEXTS = ("query", "passage")


@dataclass(frozen=True)
class Job:
    """What every process needs to know of the job, besides its shards."""

    config: RerankConfig
    plan: Plan
    """Its shards may be left out: they travel one by one."""
    identity: str
    """Of the job's record, for the markers."""
    auto: Collection[int] = ()
    """The levels whose `dtype: auto` was settled for all processes: each looks whether its device agrees."""
    previous: Callable[[], PreviousScores] | None = None
    """How a process comes by the scores of a previous run, where the job reuses any."""
    previous_prefixes: Sequence[str | None] = ()
    """Then of each level: of which columns there its scores are; None where no scorer there is the same."""


@dataclass(frozen=True)
class OpenShard:
    """A shard that was read, and scored by the levels before the one it waits for."""

    shard: Shard
    candidates: pa.Table
    """All that can be scored, without their texts."""
    texts: pa.Table
    """`query` and `passage` of those that the next level sees, in order."""
    hashes: pa.Table
    """`hash_pairs` of the candidates."""
    results: pa.Table
    """What the levels gave, as `cascade` says; a row a candidate."""
    rejects: pa.Table
    counts: tuple[LevelCounts, ...] = ()
    """Of the levels that scored it."""


@dataclass(frozen=True)
class EncodedShard:
    """A shard of which a level's pairs are tokenized, but for those whose scores a previous run knows."""

    open: OpenShard
    pairs: EncodedPairs
    """Those to score, in order."""
    results: pa.Table
    """A `result_schema` row for each candidate that the level sees; null where it has still to be scored."""
    encode_s: float

    @property
    def shard(self) -> Shard:
        return self.open.shard

    @property
    def new(self) -> pa.Array:
        """The places of `pairs`, among the candidates that the level sees."""
        return pc.indices_nonzero(self.results["score"].is_null())


@dataclass(frozen=True)
class ScoredShard:
    """An encoded shard with every result of the level."""

    open: OpenShard
    results: pa.Table
    """A `result_schema` row for each candidate that the level saw."""
    counts: LevelCounts


def read(shard: Shard, job: Job) -> OpenShard:
    """Raises InputError for a file that can't be read, or an id that the run can't hold."""
    config = job.config
    candidates, rejects = read_shard(shard, config.input, config.kept, job.plan)
    if config.output.trec_run:
        check_trec_ids(candidates)
    texts = candidates.select(_TEXTS).cast(pa.schema([(name, pa.large_string()) for name in _TEXTS]))
    return OpenShard(
        shard=shard,
        candidates=candidates.drop_columns(_TEXTS),
        texts=texts,
        hashes=hash_pairs(*(texts[name].to_pylist() for name in _TEXTS)),
        results=pa.table({"rank": pa.array(original_ranks(candidates["query_id"]), pa.int32())}),
        rejects=rejects,
    )


def encode(shard: Shard | OpenShard, job: Job) -> EncodedShard:
    """Tokenize what the next level sees, of a shard that is read first where it comes unread.

    Raises InputError for a file or a pair that can't be scored.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", "1")  # the tokenizer would take every core of the machine
    start = time.monotonic()
    ready = read(shard, job) if isinstance(shard, Shard) else shard
    levels = job.config.cascade
    level = levels[len(ready.counts)]
    saw = cascade.seen(ready.results, level.sees)
    known = _known(ready.hashes.filter(saw), level, job)
    new = pc.indices_nonzero(known["score"].is_null())
    pairs = _encode(ready, level, new)
    # Who goes on is not known before the scores are; the last level hands nothing on.
    texts = ready.texts if level is not levels[-1] else ready.texts.schema.empty_table()
    return EncodedShard(
        open=replace(ready, texts=texts), pairs=pairs, results=known, encode_s=time.monotonic() - start
    )


def _encode(ready: OpenShard, level: Level, new: pa.Array) -> EncodedPairs:
    """new: the places of the pairs to encode, among those that the level sees."""
    queries, passages = (ready.texts[name].take(new).to_pylist() for name in _TEXTS)
    try:
        with cascade.named(level):
            return _scorer(level.scorer).encode(list(zip(queries, passages, strict=True)))
    except TooManyTokensError as error:
        raise ConfigError(f"shard_pairs {len(new)}: {error}; lower shard_pairs") from error
    except ScoringError as error:
        raise name_pair(error, ready, level, new) from error


def score(encoded: EncodedShard, scorer: Scorer) -> ScoredShard:
    """Raises ScoringError, by its place among the pairs to score, for one that has no score."""
    start = time.monotonic()
    scored = scorer.forward(encoded.pairs)
    new_results = _results(scored, scorer.shown(scored.scores), encoded.pairs.pairs, encoded.results.schema)
    results = _filled(encoded.results, new_results)
    cut = pc.or_(pc.greater(results["query_cut"], 0), pc.greater(results["passage_cut"], 0))
    counts = LevelCounts(
        pairs=results.num_rows,
        reused=results.num_rows - len(encoded.pairs),
        copies=scored.copies,
        truncated=pc.sum(cut).as_py() or 0,
        tokens=scored.tokens,
        padded_tokens=scored.padded_tokens,
        encode_s=encoded.encode_s,
        score_s=time.monotonic() - start,
    )
    return ScoredShard(encoded.open, results, counts)


def hand_on(scored: ScoredShard, job: Job) -> OpenShard:
    """The shard as the next level takes it: in this level's order, with the texts of those that go on."""
    done = scored.open
    levels = job.config.cascade
    level = levels[len(done.counts)]
    saw = cascade.seen(done.results, level.sees)
    results = cascade.add_level(level, done.results, scored.results)
    results = cascade.ranked_by(level, levels, done.candidates, results)
    goes_on = cascade.seen(results, level.keep).filter(saw)
    texts = done.texts.filter(goes_on) if level is not levels[-1] else done.texts
    return replace(done, results=results, texts=texts, counts=(*done.counts, scored.counts))


def name_pair(error: ScoringError, shard: OpenShard, level: Level, new: pa.Array) -> InputError:
    """The same error by the pair's ids and its place in the input, which the scorer does not know.

    new: the places of the pairs that the scorer got, among those that the level sees.
    """
    theirs = shard.candidates.filter(cascade.seen(shard.results, level.sees)).take(new)
    ids = theirs.slice(error.index, 1).select(["query_id", "passage_id", "file", "row"]).to_pylist()[0]
    where = f"{level.under}scorer: " if level.under else ""
    return InputError(
        f"{ids['file']} row {ids['row']}: query {ids['query_id']!r}, passage {ids['passage_id']!r}:"
        f" {where}{error.reason}"
    )


@lru_cache(maxsize=_TOKENIZERS)
def _scorer(config: ScorerConfig) -> Scorer:
    """One tokenizer a level and process, however many shards it encodes."""
    return Scorer(config)


def _known(hashes: pa.Table, level: Level, job: Job) -> pa.Table:
    """A `result_schema` row for each pair that a level sees, null where it has to be scored."""
    if job.previous is not None and (prefix := job.previous_prefixes[level.number]) is not None:
        return job.previous().find(hashes, level.more_scores, prefix)
    schema = result_schema(level.more_scores)
    return pa.table([pa.nulls(hashes.num_rows, field.type) for field in schema], schema=schema)


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
