"""The steps of a first stage: what a task of each does, wherever it runs. Data first, marker last.

OUTPUT/_manifest/tasks/NAME.json   what a task gave, written when it was done
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pipeline.errors import OutputError
from pipeline.retrieval import bm25, dense, embeddings, merging, reading
from pipeline.retrieval.plan import Job
from pipeline.retrieval.reading import Result
from pipeline.retrieval.shards import write_table
from pipeline.tables.output.attempts import MAX_ATTEMPTS, Attempts, forget_attempts
from pipeline.tables.output.directory import Directory

MARKERS = "_manifest/tasks"
_READ_THREADS = 16


@dataclass(frozen=True)
class Task:
    """A call of a step, by its arguments beside the job."""

    name: str
    step: str
    arguments: dict[str, Any]


def _search(job: Job, source: str, block: str, group: int, **arguments: Any) -> Result:
    search = dense.search if job.config.sources[source].dense is not None else bm25.search
    found = search(job, source, block, **arguments)
    write_table(job.output, merging.hits_file(source, block, group), found)
    return {}


STEPS: dict[str, Callable[..., Result]] = {
    "read": reading.read_file_range,
    "drop": reading.drop_repeated,
    "index": bm25.index,
    "statistics": bm25.statistics,
    "embed": embeddings.embed,
    "search": _search,
    "merge": merging.merge,
}


def do(task: Task, job: Job) -> Result:
    """Do a task and mark it done. Doing it twice writes the same bytes in the same places.

    Raises OutputError for a task that killed every process which tried it.
    """
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
        result = STEPS[task.step](job, **task.arguments)
    job.output.write(f"{MARKERS}/{task.name}.json", json.dumps(result).encode())
    return result


def results_before(output: Directory, tasks: list[Task]) -> dict[str, Result]:
    """What the tasks gave that an earlier start has done, by name."""
    there = output.names(MARKERS)
    names = [task.name for task in tasks if f"{task.name}.json" in there]
    with ThreadPoolExecutor(_READ_THREADS) as threads:
        read = threads.map(lambda name: output.read(f"{MARKERS}/{name}.json"), names)
        return {name: json.loads(data) for name, data in zip(names, read, strict=True) if data}
