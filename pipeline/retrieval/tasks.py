"""The tasks of a first stage, and which are done.

OUTPUT/_manifest/tasks/NAME.json   a task's marker, written after its data: what it gave, and the files that
                                   it vouches for. Without them it does not count
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline import log
from pipeline.retrieval.shards import Files
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.output.manifest import Listing, Problem, in_threads, look_into
from pipeline.tables.output.sealed import DamagedError, sealed, unsealed

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
    files: Files
    """What the task wrote, by the names in the output."""


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
