"""The steps of a first stage: what a task of each does, wherever it runs. Data first, marker last."""

import json
from collections.abc import Callable
from typing import Any

from pipeline.errors import OutputError
from pipeline.retrieval import bm25, dense, embeddings, merging, reading, shared_texts
from pipeline.retrieval.plan import Job
from pipeline.retrieval.shards import Done, write_table
from pipeline.retrieval.tasks import Task, TaskReport, mark_done
from pipeline.tables.outage import wait_out
from pipeline.tables.output.attempts import MAX_ATTEMPTS, Attempts, forget_attempts
from pipeline.tables.output.format_version import FORMAT_VERSION


def _search(job: Job, source: str, block: str, group: int, **arguments: Any) -> Done:
    search = dense.search if job.config.sources[source].dense is not None else bm25.search
    found = search(job, source, block, **arguments)
    return Done({}, write_table(job.output, merging.hits_file(source, block, group), found))


STEPS: dict[str, Callable[..., Done]] = {
    "read": reading.read_file_range,
    "drop": reading.drop_repeated,
    "index": bm25.index,
    "statistics": bm25.statistics,
    "share": shared_texts.share,
    "embed_shared": embeddings.embed_shared,
    "embed": embeddings.embed,
    "search": _search,
    "merge": merging.merge,
}


def do(task: Task, job: Job) -> TaskReport:
    """Do a task and mark it done. Doing it twice writes the same bytes in the same places.

    Raises OutputError for a task that killed every process which tried it.
    """
    wait_out(job.config.max_outage_s)
    attempts = Attempts(job.output, task, "task")
    made = attempts.made()
    if made >= MAX_ATTEMPTS:
        forget_attempts(job.output)  # the next start, on another machine perhaps, may do better
        raise OutputError(
            f"{job.output.url}: {task.name} was given up after {MAX_ATTEMPTS} processes died of it, out of"
            f" memory perhaps: {json.dumps(task.arguments)[:300]}. Start again on a machine with more memory,"
            " or lower shard_passages in another output.path"
        )
    with attempts.counted(made):
        done = STEPS[task.step](job, **task.arguments)
    report = TaskReport(
        format_version=FORMAT_VERSION, job=job.identity, name=task.name, result=done.result, files=done.files
    )
    mark_done(job.output, report)
    return report
