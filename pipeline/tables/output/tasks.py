"""The tasks of a job whose work is cut in tasks, and which are done. Data first, marker last.

OUTPUT/_manifest/tasks/NAME.json   a task's marker, written after its data: what it gave, and the files that
                                   it vouches for. Without them it does not count
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline import log
from pipeline.errors import OutputError
from pipeline.tables.output.attempts import MAX_ATTEMPTS, Attempts, forget_attempts
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.output.manifest import Listing, Problem, in_threads, look_into
from pipeline.tables.output.sealed import DamagedError, Stamp, sealed, unsealed

MARKERS = "_manifest/tasks"
_NAMED_IN_LOG = 10

Result = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A call of a step, by its arguments beside the job."""

    name: str
    step: str
    arguments: dict[str, Any]


class TaskReport(BaseModel):
    """What became of a task. It is the marker's content, and what the driver hears."""

    model_config = ConfigDict(frozen=True)

    format_version: int
    job: str
    """The identity of the job's record: another job's marker is none."""
    name: str
    result: Result
    files: dict[str, Stamp]
    """What the task wrote, by the names in the output."""


def do_once(
    output: Directory, job: str, task: Task, work: Callable[[], tuple[Result, dict[str, Stamp]]], smaller: str
) -> TaskReport:
    """Do a task and mark it done. Doing it twice writes the same bytes in the same places.

    job: the identity of its record; work: gives what the task found and the files that it wrote; smaller: the
    config's field that makes tasks smaller. Raises OutputError for a task that killed every process which
    tried it.
    """
    attempts = Attempts(output, task, "task")
    made = attempts.made()
    if made >= MAX_ATTEMPTS:
        forget_attempts(output)  # the next start, on another machine perhaps, may do better
        raise OutputError(
            f"{output.url}: {task.name} was given up after {MAX_ATTEMPTS} processes died of it, out of"
            f" memory perhaps: {json.dumps(task.arguments)[:300]}. Start again on a machine with more memory,"
            f" or lower {smaller} in another output.path"
        )
    with attempts.counted(made):
        result, files = work()
    report = TaskReport(format_version=FORMAT_VERSION, job=job, name=task.name, result=result, files=files)
    mark_done(output, report)
    return report


def mark_done(output: Directory, report: TaskReport) -> None:
    output.write(_file(report.name), sealed(report))


def done_before(output: Directory, job: str, tasks: list[Task], *, check_bytes: bool) -> Iterator[TaskReport]:
    """The reports of the tasks that need no work: those whose files are there as their markers name them. The
    log tells which are done again for damage.

    check_bytes: read all their files; else the files' lengths are compared.
    """
    there = output.names(MARKERS)
    marked = [task.name for task in tasks if f"{task.name}.json" in there]
    found = list(in_threads(partial(_read_marker, output, job), marked))
    files = {file for report in found if isinstance(report, TaskReport) for file in report.files}
    listing = Listing(output, {file.rpartition("/")[0] for file in files})
    damaged = 0
    for report in found:
        problem = report if isinstance(report, Problem) else _problem(output, listing, report, check_bytes)
        if isinstance(report, TaskReport) and problem is None:
            yield report
        elif problem is not None:
            damaged += 1
            if damaged <= _NAMED_IN_LOG:
                log.warning("task is done again", file=f"{output.url}/{problem.file}", why=problem.what)
    if damaged > _NAMED_IN_LOG:
        log.warning("tasks are done again", tasks=damaged)


def _problem(output: Directory, listing: Listing, report: TaskReport, check_bytes: bool) -> Problem | None:
    problem = next(listing.problems(report.files), None)
    if problem is None and check_bytes:
        problem = next(filter(None, (look_into(output, *item) for item in report.files.items())), None)
    return problem


def _read_marker(output: Directory, job: str, name: str) -> TaskReport | Problem:
    data = output.read(_file(name))
    if data is None:
        return Problem(_file(name), "is missing")
    try:
        report = unsealed(data, TaskReport)
    except DamagedError:
        return Problem(_file(name), "is damaged")
    own = (report.job, report.name, report.format_version) == (job, name, FORMAT_VERSION)
    return report if own else Problem(_file(name), "is the marker of another job or task")


def _file(name: str) -> str:
    return f"{MARKERS}/{name}.json"
