"""The steps of a first stage: what a task of each does, wherever it runs. Data first, marker last."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from pipeline.retrieval import bm25, merging, reading, shared_texts
from pipeline.retrieval.plan import Job
from pipeline.retrieval.shards import Done, write_table
from pipeline.tables.outage import wait_out
from pipeline.tables.output.tasks import Task, TaskReport, do_once


def _embed(job: Job, **arguments: Any) -> Done:
    from pipeline.retrieval import embeddings  # noqa: PLC0415  (torch comes with it)

    return embeddings.embed(job, **arguments)


def _embed_shared(job: Job, **arguments: Any) -> Done:
    from pipeline.retrieval import embeddings  # noqa: PLC0415  (torch comes with it)

    return embeddings.embed_shared(job, **arguments)


def _search(job: Job, source: str, block: str, group: int, **arguments: Any) -> Done:
    search: Callable[..., pa.Table] = bm25.search
    if source in job.config.dense:
        from pipeline.retrieval import dense  # noqa: PLC0415  (torch comes with it)

        search = dense.search
    found = search(job, source, block, **arguments)
    return Done({}, write_table(job.output, merging.hits_file(source, block, group), found))


STEPS: dict[str, Callable[..., Done]] = {
    "read": reading.read_file_ranges,
    "drop": reading.drop_repeated,
    "index": bm25.index,
    "statistics": bm25.statistics,
    "share": shared_texts.share,
    "embed_shared": _embed_shared,
    "embed": _embed,
    "search": _search,
    "merge": merging.merge,
}


def do(task: Task, job: Job) -> TaskReport:
    """As `do_once`."""
    wait_out(job.config.max_outage_s)
    return do_once(
        job.output, job.identity, task, lambda: STEPS[task.step](job, **task.arguments), "shard_passages"
    )
