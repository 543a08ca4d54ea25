"""The work on one shard of a run: read it, choose each query's negatives, write its training rows.

OUTPUT/training_rows/SHARD.jsonl: FlagEmbedding's rows, a query each; see `tables/output/training_rows`
OUTPUT/unmatched/SHARD.parquet: query_id and reason of the queries that have none
OUTPUT/rejects/SHARD.parquet: rows of the run that can't be read, as `rerank` has them
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.mining.config import MineConfig
from pipeline.mining.judged_run import choices, line_of
from pipeline.mining.negatives import Choice
from pipeline.tables.candidates import Plan, read_shard
from pipeline.tables.input.shards import Shard
from pipeline.tables.outage import wait_out
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.run import id_text, parquet_bytes
from pipeline.tables.output.sealed import Stamp
from pipeline.tables.output.tasks import Result, Task, TaskReport, do_once
from pipeline.tables.output.training_rows import training_rows_file

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
        self.lines.append(line_of(query, choice))
        self.counts["rows"] += 1
        self.counts["positives"] += len(choice.positives)
        self.counts["negatives"] += len(choice.negatives)
        self.counts["short"] += len(choice.negatives) < number


def _mine(shard: Shard, job: Job) -> tuple[Result, dict[str, Stamp]]:
    candidates, rejects = read_shard(shard, job.config.input, job.config.kept, job.plan)
    mined = _Mined()
    for query_id, query, choice in choices(candidates, job.config):
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


def _named(left_out: list[tuple[Any, str]]) -> dict[str, list[str]]:
    named: dict[str, list[str]] = {}
    for query_id, reason in left_out:
        if len(some := named.setdefault(reason, [])) < NAMED:
            some.append(id_text(query_id))
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
