"""A Ray cluster: encode (CPU) -> score, rank, commit (one replica an actor), streamed by Ray Data.

A shard travels as ONE row from stage to stage, so that nothing is shuffled and no query is split. A cascade
is more such stages: encode and score once a level, each with a pool of actors, no table in between.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy

from pipeline import cluster
from pipeline.placement import ActorsConfig
from pipeline.reporting.metrics import Metrics
from pipeline.reranking.cascade import Level
from pipeline.reranking.row import is_outcome, of_row, outcome_of_row, shard_to_row, to_row
from pipeline.reranking.shard import EncodedShard, Job
from pipeline.reranking.worker import Outcome, Worker, encode_once
from pipeline.scoring.config import Dtype
from pipeline.tables.input.shards import Shard
from pipeline.tables.output.attempts import forget_attempts
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.score_table import PreviousScores


def connect(pools: Sequence[ActorsConfig], shards: list[Shard]) -> int:
    cluster.connect(pools, max(shard.pairs for shard in shards))
    return sum(min(actors.max, len(shards)) for actors in pools)


def describe(pools: Sequence[ActorsConfig]) -> str:
    return cluster.describe(pools)


def fastest_dtypes(levels: Sequence[Level]) -> list[Dtype]:
    pools = [level.actors for level in levels]
    cluster.connect(pools, 0)
    return cluster.fastest_dtypes([level.scorer for level in levels], pools)


def work(job: Job, shards: list[Shard]) -> Iterator[Outcome]:
    """Ray must be joined: `connect`. Tells Prometheus what it tells the caller."""
    output = Directory(job.config.output.path)
    forget_attempts(output)  # of a driver that died: machines die with it, through no fault of a shard
    metrics = Metrics(
        output.url,
        planned={shard.name: shard.pairs for shard in shards},
        done=len(job.plan.shards) - len(shards),
        actors=sum(min(level.actors.max, len(shards)) for level in job.config.cascade),
    )
    with cluster.own_errors():
        for row in _dataset(_for_workers(job), shards).iter_rows():
            outcome = outcome_of_row(row)
            metrics.add(outcome)
            yield outcome


def _for_workers(job: Job) -> Job:
    """Without what is large: shards travel one by one, previous scores lie in each node's object store."""
    previous = None if job.previous is None else partial(_fetch, ray.put(job.previous()))
    return replace(job, plan=replace(job.plan, shards=()), previous=previous)


def _fetch(scores: "ray.ObjectRef[PreviousScores]") -> PreviousScores:
    """Read where it lies, without a copy, by all processes of a node."""
    return ray.get(scores)


def _dataset(job: Job, shards: list[Shard]) -> ray.data.Dataset:
    rows = [shard_to_row(shard) for shard in shards]
    dataset: ray.data.Dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    for level in job.config.cascade:
        dataset = _through(level, dataset, job, len(shards))
    return dataset


def _through(level: Level, dataset: ray.data.Dataset, job: Job, shards: int) -> ray.data.Dataset:
    actors, most = level.actors, min(level.actors.max, shards)
    if actors.num_gpus:
        # On CPUs of its own, on any node: no GPU waits for texts. On CPUs the actors encode for themselves.
        encode = partial(_encode, job=job)
        dataset = dataset.map_batches(encode, batch_size=1, batch_format="pyarrow", num_cpus=1)
    threads = 2 if actors.num_gpus else 1
    return dataset.map_batches(
        Actor,
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=actors.num_cpus,
        num_gpus=actors.num_gpus,
        label_selector=actors.label_selector,
        compute=ActorPoolStrategy(
            min_size=min(actors.min, most),
            max_size=most,
            max_concurrent_calls_per_actor=threads,
            enable_true_multi_threading=True,
            max_tasks_in_flight_per_actor=2 * threads,
        ),
        fn_constructor_kwargs={"job": job, "level": level.number},
    )


def _encode(row: pa.Table, job: Job) -> pa.Table:
    if is_outcome(row):
        return row
    shard = of_row(row)
    assert not isinstance(shard, EncodedShard)
    return to_row(encode_once(shard, job))


class Actor:
    """A worker of a level, to which shards come as rows."""

    def __init__(self, job: Job, level: int) -> None:
        actor = ray.get_runtime_context().get_actor_id()  # the same when its process was started again
        self._worker = Worker(job, level, str(actor))

    def __call__(self, row: pa.Table) -> pa.Table:
        with cluster.ends_with_its_device():
            return row if is_outcome(row) else to_row(self._worker(of_row(row)))
