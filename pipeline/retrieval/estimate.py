"""How long a first stage would embed, and what that costs: lines of the dry run.

Nothing is told of reading, BM25 and search: that depends on disks and on the shape of the texts.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from pipeline import actor_hours
from pipeline.actor_hours import MEASURE, Work, rounded, timed, told_rate
from pipeline.errors import ConfigError, ModelError
from pipeline.retrieval.embeddings import ROLE, dense_of, reused_directory
from pipeline.retrieval.plan import KINDS, QUERIES_A_SHARD, TEXT, Job, Kind
from pipeline.retrieval.reading import cleaned
from pipeline.retrieval.scorers import encoder_of, loaded, named
from pipeline.retrieval.shared_texts import prefixes
from pipeline.retrieval.vectors import read_hashes
from pipeline.scoring.copies import distinct_sequences
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.done_marker import names_done, read_marker
from pipeline.tables.output.tasks import TaskReport

_SAMPLED: dict[Kind, int] = {"passages": 2000, "queries": 500}
_MOST_RANGES = 8


@dataclass(frozen=True)
class _Left:
    """What is left to embed of a table, told from a sample."""

    texts: float
    tokens: float
    reused: float
    sample: list[str]
    """Texts that are to be embedded."""
    looked_at: int

    @property
    def told(self) -> str:
        return f"{self.texts:,.0f}"


def estimate(job: Job, how_fast: str | None) -> Iterator[str]:
    """Of the dense sources, what is left to embed; with `how_fast`, its time and cost.

    how_fast: `measure`, or texts/s an actor. Raises ConfigError or ModelError where none can be had.
    """
    texts, seconds, shards = 0.0, 0.0, 0
    for name in job.config.dense:
        left = {kind: _left(job, name, kind) for kind in KINDS}
        yield f"{name:<10} {_told(job, name, left)}"
        here = sum(each.texts for each in left.values())
        if how_fast is None or not here:
            continue
        texts_per_s, tokens_per_s, source = _speed(job, name, left, how_fast)
        tokens = "" if tokens_per_s is None else f" and {tokens_per_s:,.0f} tokens/s"
        of = f"{name}: " if len(job.config.dense) > 1 else ""
        yield f"{'speed':<10} {of}{rounded(texts_per_s, 1)} texts/s{tokens} an actor ({source})"
        texts, seconds = texts + here, seconds + here / texts_per_s
        shards = max(shards, _shards(job, left))
    if seconds:
        pools, work = [job.config.actors], Work(shards, (seconds / 3600,))
        time_told = actor_hours.time_of(pools, work, job.config.executor)
        yield f"{'time':<10} {time_told}; reading, BM25 and search come on top"
        yield f"{'cost':<10} {actor_hours.cost_of(pools, work, texts, 'texts')}"


def _left(job: Job, source: str, kind: Kind) -> _Left:
    hashes, texts, looked_at, rows = _sample(job, kind)
    known = np.isin(prefixes(hashes), _kept(job, source, kind))
    new = [text for text, has in zip(texts, known.tolist(), strict=True) if not has]
    share = max(0, rows - _done(job, source, kind)) / max(1, looked_at)
    tokens = _tokens(job, source, kind, new) * share
    return _Left(len(new) * share, tokens, int(known.sum()) * share, new, looked_at)


def _sample(job: Job, kind: Kind) -> tuple[pa.Array, list[str], int, int]:
    """(hashes, texts, rows looked at, rows of the table), of file ranges spread evenly.

    Rows that would be rejected are looked at, and give no text.
    """
    ranges = job.table(kind).file_ranges
    chosen = np.unique(np.linspace(0, len(ranges) - 1, min(len(ranges), _MOST_RANGES)).round().astype(int))
    quota = -(-_SAMPLED[kind] // len(chosen))
    found: list[pa.Table] = []
    looked_at, is_all = 0, len(chosen) == len(ranges)
    for at in chosen.tolist():
        here = 0
        rejects: list[pa.Table] = []
        for rows in cleaned(job, kind, ranges[at], rejects):
            some = rows.slice(0, quota - here)
            found.append(some.select(["hash", TEXT[kind]]))
            here += some.num_rows
            if here >= quota:
                is_all = False
                break
        looked_at += here + sum(rows.num_rows for rows in rejects)
    table = pa.concat_tables(found).combine_chunks()
    return (
        table["hash"],
        table[TEXT[kind]].to_pylist(),
        looked_at,
        looked_at if is_all else job.table(kind).rows,
    )


def _kept(job: Job, source: str, kind: Kind) -> npt.NDArray[np.uint64]:
    """The first 8 bytes of each hash whose embedding `reuse` has."""
    url = reused_directory(job, source, kind)
    if url is None:
        return np.zeros(0, np.uint64)
    there = Directory(url)
    names = [name for name in there.names() if not name.startswith("_")]
    return np.concatenate(
        [np.zeros(0, np.uint64), *(prefixes(read_hashes(f"{there.url}/{name}")) for name in names)]
    )


def _done(job: Job, source: str, kind: Kind) -> int:
    """How many texts an earlier start of this job has embedded or taken."""
    begin = f"embed-{source}-{kind}-"
    names = [name for name in names_done(job.output, TaskReport) if name.startswith(begin)]
    reports = [read_marker(job.output, TaskReport, job.identity, name) for name in names]
    return sum(
        report.result["embedded"] + report.result["reused"]
        for report in reports
        if isinstance(report, TaskReport)
    )


def _tokens(job: Job, source: str, kind: Kind, texts: list[str]) -> int:
    """That go through the model: equal texts do once."""
    encoder = encoder_of(source, dense_of(job, source).scorer)
    sequences, _ = distinct_sequences(encoder.encode_texts(texts, ROLE[kind])[0])
    return len(sequences.flatten())


def _told(job: Job, source: str, left: dict[Kind, _Left]) -> str:
    passages, queries = (left[kind] for kind in KINDS)
    reused = sum(each.reused for each in left.values())
    taken = f", {reused:,.0f} more taken from {job.config.reuse}" if source in job.reused else ""
    tokens = sum(each.tokens for each in left.values())
    return (
        f"about {passages.told} passages and {queries.told} queries to embed, {tokens:,.0f} tokens{taken};"
        f" estimated from {passages.looked_at} and {queries.looked_at} of them"
    )


def _speed(job: Job, source: str, left: dict[Kind, _Left], how_fast: str) -> tuple[float, float | None, str]:
    """(texts/s, tokens/s where they are known, where this is from) of an actor."""
    texts_per_s = told_rate(how_fast, "texts/s")
    if texts_per_s is not None:
        return texts_per_s, None, "as told"
    if how_fast != MEASURE:
        raise ConfigError(f"--speed {how_fast}: needs {MEASURE}, or texts/s an actor in a number")
    tokens_per_s = _measured(job, source, left)
    seconds = sum(each.tokens for each in left.values()) / tokens_per_s
    return sum(each.texts for each in left.values()) / seconds, tokens_per_s, "measured here"


def _measured(job: Job, source: str, left: dict[Kind, _Left]) -> float:
    """Tokens/s, of the table of which more is left."""
    kind = max(KINDS, key=lambda kind: len(left[kind].sample))
    texts, config = left[kind].sample, dense_of(job, source).scorer
    torch.set_num_threads(max(1, int(job.config.actors.num_cpus)))  # as an actor has
    try:
        scorer = loaded(source, config, was_auto=False)
        with named(source, config):
            found = timed(lambda number: scorer.embed_windows(texts[:number], ROLE[kind]).tokens, len(texts))
    except ModelError as error:
        raise ModelError(
            f"--speed {MEASURE}: {error}; measure on a machine like the actors', or give texts/s"
        ) from error
    return found.tokens / found.seconds


def _shards(job: Job, left: dict[Kind, _Left]) -> int:
    """Tasks that actors have side by side, where they are of one size: passages, or queries alone."""
    if left["passages"].texts:
        return max(1, round(left["passages"].texts / job.config.shard_passages))
    return max(1, round(left["queries"].texts / QUERIES_A_SHARD))
