from pathlib import Path

import pytest

from pipeline.errors import TemporaryError
from pipeline.tables.output.attempts import MAX_ATTEMPTS, Attempts
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.sealed import Stamp
from pipeline.tables.output.tasks import Result, Task, TaskReport, do_once, done_before

TASKS = [Task(name, "count", {"number": number}) for number, name in enumerate(("one", "two", "three"))]


@pytest.fixture
def output(tmp_path: Path) -> Directory:
    return Directory(str(tmp_path))


def do(output: Directory, task: Task, folder: str = "counts") -> TaskReport:
    def work() -> tuple[Result, dict[str, Stamp]]:
        file = f"{folder}/{task.name}"
        return task.arguments, {file: output.write(file, task.name.encode())}

    return do_once(output, "job", task, work, "shard_pairs")


def found(output: Directory, job: str = "job", *, check_bytes: bool = False) -> list[str]:
    return [report.name for report in done_before(output, job, TASKS, check_bytes=check_bytes)]


def test_what_was_done_is_told_in_the_order_of_the_tasks(output: Directory) -> None:
    reports = [do(output, TASKS[2]), do(output, TASKS[0], "elsewhere")]
    assert list(done_before(output, "job", TASKS, check_bytes=True)) == reports[::-1]
    assert found(output, "another job") == []


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "counts/three why='is missing'"),
        (b"thre", "counts/three why='has 4 bytes, and 5 were written'"),
        (b"THREE", "counts/three why='holds other bytes than were written'"),
    ],
)
def test_a_task_without_its_data_is_done_again(
    output: Directory, caplog: pytest.LogCaptureFixture, data: bytes | None, told: str
) -> None:
    for task in TASKS:
        do(output, task)
    output.remove_file("counts/three") if data is None else output.write("counts/three", data)
    assert found(output) == (["one", "two", "three"] if data == b"THREE" else ["one", "two"])
    assert found(output, check_bytes=True) == ["one", "two"]
    assert f"task is done again file={output.url}/{told}" in caplog.text


def test_many_damaged_markers_are_counted(output: Directory, caplog: pytest.LogCaptureFixture) -> None:
    tasks = [Task(f"task-{number}", "count", {}) for number in range(12)]
    for task in tasks:
        output.write(f"_manifest/tasks/{task.name}.json", b"{}")
    assert list(done_before(output, "job", tasks, check_bytes=False)) == []
    assert caplog.text.count("task is done again") == 10
    assert "tasks are done again tasks=12" in caplog.text


def test_a_task_that_kills_every_process_is_given_up(output: Directory) -> None:
    output.write("_manifest/attempts/one.task.json", str(MAX_ATTEMPTS).encode())
    with pytest.raises(
        TemporaryError, match=r"one was given up after 3 processes died .* or lower shard_pairs"
    ):
        do(output, TASKS[0])
    assert Attempts(output, TASKS[0], "task").made() == 0
