"""The work on one shard of a run: read it, choose each query's negatives, write its training rows.

OUTPUT/training_rows/SHARD.jsonl: FlagEmbedding's rows, a query each; see `tables/output/training_rows`
OUTPUT/unmatched/SHARD.parquet: query_id and reason of the queries that have none
OUTPUT/rejects/SHARD.parquet: rows of the run that can't be read, as `rerank` has them
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.mining.config import MineConfig
from pipeline.mining.negatives import Candidate, Choice, choose
from pipeline.ranking import query_numbers, ranks
from pipeline.tables.candidates import Plan, read_shard
from pipeline.tables.input.shards import Shard
from pipeline.tables.outage import wait_out
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.run import parquet_bytes
from pipeline.tables.output.sealed import Stamp
from pipeline.tables.output.tasks import Result, Task, TaskReport, do_once
from pipeline.tables.output.training_rows import training_row, training_rows_file
from pipeline.tables.positives import are_positive

_NOWHERE = 2**53
"""The rank of what has none, behind all others."""
NAMED = 10
"""Queries left out that a shard tells by name, for each reason."""


@dataclass(frozen=True)
class Job:
    """What every process needs to know."""

    config: MineConfig
    plan: Plan
    """Its shards may be left out: they travel one by one."""
    identity: str
    """Of the job's record, for the markers."""

    @property
    def output(self) -> Directory:
        return Directory(self.config.output.path)


def task_of(shard: Shard) -> Task:
    return Task(shard.name, "mine", {"shard": shard.model_dump_json()})


def do(task: Task, job: Job) -> TaskReport:
    """Mine a task's shard, once. Raises RayrankError for what a user can mend."""
    wait_out(job.config.max_outage_s)
    shard = Shard.model_validate_json(task.arguments["shard"])
    return do_once(job.output, job.identity, task, lambda: _mine(shard, job), "shard_pairs")


@dataclass
class _Mined:
    """Of the queries of a shard, one after another."""

    lines: list[bytes] = field(default_factory=list)
    left_out: list[tuple[Any, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, query_id: Any, query: str, choice: Choice, number: int) -> None:
        self.counts["queries"] += 1
        self.refused.update(choice.refused)
        if choice.reason is not None:
            self.left_out.append((query_id, choice.reason))
            return
        pos, neg = (
            [(each.passage, each.score) for each in side] for side in (choice.positives, choice.negatives)
        )
        self.lines.append(training_row(query, pos, neg, {}))
        self.counts["rows"] += 1
        self.counts["positives"] += len(choice.positives)
        self.counts["negatives"] += len(choice.negatives)
        self.counts["short"] += len(choice.negatives) < number


def _mine(shard: Shard, job: Job) -> tuple[Result, dict[str, Stamp]]:
    candidates, rejects = read_shard(shard, job.config.input, job.config.kept, job.plan)
    mined = _Mined()
    for query_id, query, theirs in _by_query(candidates, job.config):
        choice = choose(str(query_id), query, theirs, job.config.negatives)
        mined.add(query_id, query, choice, job.config.negatives.number)
    result = {
        **mined.counts,
        "candidates": candidates.num_rows,
        "refused": mined.refused,
        "left_out": Counter(reason for _, reason in mined.left_out),
        "named": _named(mined.left_out),
        "rejected": Counter(rejects["reason"].to_pylist()),
    }
    return result, _write(job.output, shard.name, mined, candidates.schema.field("query_id").type, rejects)


def _by_query(candidates: pa.Table, config: MineConfig) -> Iterator[tuple[Any, str, list[Candidate]]]:
    """(id, text, candidates with a score) of each query. A candidate without one is neither side's."""
    scores = pc.struct_field(candidates["kept"].combine_chunks(), config.score).cast(pa.float64())
    finite = pc.fill_null(pc.is_finite(scores), fill_value=False)
    usable, scores = candidates.filter(finite), scores.filter(finite)
    places = _ranks(usable, scores, config)
    positive = are_positive(usable.append_column("rank", places), config.positives)
    numbers = query_numbers(candidates["query_id"])
    columns = (usable[name].to_pylist() for name in ("passage_id", "passage"))
    rows = zip(
        numbers[finite.to_numpy(zero_copy_only=False)],
        *columns,
        places.to_pylist(),
        scores.to_pylist(),
        positive.tolist(),
        strict=True,
    )
    found = {
        number: [Candidate(str(row[1]), *row[2:]) for row in group]
        for number, group in groupby(rows, itemgetter(0))
    }
    firsts = np.unique(numbers, return_index=True)[1]
    for number, at in enumerate(firsts.tolist()):
        row = candidates.slice(at, 1).select(["query_id", "query"]).to_pylist()[0]
        yield row["query_id"], row["query"], found.get(number, [])


def _ranks(candidates: pa.Table, scores: pa.Array, config: MineConfig) -> pa.Array:
    """Where the run's own column tells none, one that is in no window."""
    if config.rank is None:
        return ranks(candidates["query_id"], candidates["passage_id"], scores.cast(pa.float32(), safe=False))
    own = pc.struct_field(candidates["kept"].combine_chunks(), config.rank).cast(pa.float64())
    told = pc.fill_null(pc.is_finite(own), fill_value=False)
    return pc.if_else(told, own, float(_NOWHERE)).cast(pa.int64(), safe=False)


def _named(left_out: list[tuple[Any, str]]) -> dict[str, list[str]]:
    named: dict[str, list[str]] = {}
    for query_id, reason in left_out:
        if len(some := named.setdefault(reason, [])) < NAMED:
            some.append(str(query_id))
    return named


def _write(
    output: Directory, name: str, mined: _Mined, id_type: pa.DataType, rejects: pa.Table
) -> dict[str, Stamp]:
    """What there is: a file without rows would be one that some readers die of."""
    data = {}
    if mined.lines:
        data[training_rows_file(name)] = b"".join(mined.lines)
    if mined.left_out:
        ids, reasons = zip(*mined.left_out, strict=True)
        table = pa.table({"query_id": pa.array(ids, id_type), "reason": pa.array(reasons, pa.string())})
        data[f"unmatched/{name}.parquet"] = parquet_bytes(table, "rejects")
    if rejects.num_rows:
        data[f"rejects/{name}.parquet"] = parquet_bytes(rejects, "rejects")
    return {file: output.write(file, content) for file, content in data.items()}
