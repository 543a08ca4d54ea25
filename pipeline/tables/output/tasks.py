"""The tasks of a job whose work is cut in tasks, and which are done. Data first, marker last.

OUTPUT/_manifest/tasks/NAME.json   a task's marker, written after its data: what it gave, and the files that
                                   it vouches for. Without them it does not count
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar, Self

import pyarrow as pa

from pipeline.errors import TemporaryError
from pipeline.tables.output.attempts import MAX_ATTEMPTS, Attempts, forget_attempts
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.done_marker import (
    Marker,
    mark_done,
    names_done,
    read_marker,
    whole,
    with_its_files,
)
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.output.manifest import Listing, Problem, in_threads
from pipeline.tables.output.sealed import Stamp

Result = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A call of a step, by its arguments beside the job."""

    name: str
    step: str
    arguments: dict[str, Any]

    def to_row(self) -> dict[str, str]:
        """Of a table, as which a task travels."""
        return {"task": json.dumps(asdict(self))}

    @classmethod
    def of_row(cls, row: pa.Table) -> Self:
        return cls(**json.loads(row["task"][0].as_py()))


class TaskReport(Marker):
    """What became of a task."""

    FOLDER: ClassVar[str] = "_manifest/tasks"
    NOUN: ClassVar[str] = "task"

    result: Result


def do_once(
    output: Directory, job: str, task: Task, work: Callable[[], tuple[Result, dict[str, Stamp]]], smaller: str
) -> TaskReport:
    """Do a task and mark it done. Doing it twice writes the same bytes in the same places.

    job: the identity of its record; work: gives what the task found and the files that it wrote; smaller: the
    config's field that makes tasks smaller. Raises TemporaryError for a task that killed every process which
    tried it: perhaps no fault of the task's, since processes die with their machines.
    """
    attempts = Attempts(output, task, "task")
    made = attempts.made()
    if made >= MAX_ATTEMPTS:
        forget_attempts(output)  # the next start, on another machine perhaps, may do better
        raise TemporaryError(
            f"{output.url}: {task.name} was given up after {MAX_ATTEMPTS} processes died of it, out of"
            f" memory perhaps: {json.dumps(task.arguments)[:300]}. Start again on a machine with more memory,"
            f" or lower {smaller} in another output.path"
        )
    with attempts.counted(made):
        result, files = work()
    report = TaskReport(format_version=FORMAT_VERSION, job=job, name=task.name, result=result, files=files)
    mark_done(output, report)
    return report


def done_before(
    output: Directory, job: str, tasks: list[Task], *, check_bytes: bool, dropped: str | None = None
) -> Iterator[TaskReport]:
    """The reports of the tasks that need no work: those whose files are there as their markers name them. The
    log tells which are done again for damage.

    check_bytes: read all their files; else the files' lengths are compared.
    dropped: a folder that was removed when the job had ended. What wrote there is done again, for no damage.
    """
    there = names_done(output, TaskReport)
    marked = [task.name for task in tasks if task.name in there]
    # All of them first: they tell which folders are to be listed.
    found = list(in_threads(partial(read_marker, output, TaskReport, job), marked))
    files = {file for report in found if not isinstance(report, Problem) for file in report.files}
    listing = Listing(output, {file.rpartition("/")[0] for file in files})
    look = partial(with_its_files, output, listing, check_bytes=check_bytes)
    looked_at = in_threads(look, found)
    if dropped is not None:
        looked_at = (one for one in looked_at if not _lies_in(dropped, one))
    yield from whole(output, TaskReport, looked_at)


def _lies_in(folder: str, found: TaskReport | Problem) -> bool:
    return isinstance(found, Problem) and found.file.startswith(f"{folder}/")
