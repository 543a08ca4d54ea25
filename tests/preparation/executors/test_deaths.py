"""Processes of a Ray that die of their work."""

import os
import signal
from pathlib import Path

import pytest

from pipeline.errors import TemporaryError
from pipeline.preparation import flow
from tests.after_import import after_import
from tests.own_ray import joined
from tests.preparation.tables import trec

pytestmark = pytest.mark.ray


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("_rows", r": 3 processes died while they read it, out of memory perhaps"),
        ("ordered_candidates", r"^processes died again and again of the same work"),
    ],
)
def test_a_step_that_kills_its_processes_may_do_better_later(
    step: str, told: str, folder: Path, head: dict[str, str]
) -> None:
    """Ray would have one read for ever, and tells the others' end in words of its own."""

    def deadly() -> None:
        from pipeline.preparation import tasks  # noqa: PLC0415  (in the task's process)

        setattr(tasks, step, lambda *_: os.kill(os.getpid(), signal.SIGKILL))

    def hook() -> None:
        after_import("pipeline.preparation.tasks", deadly)

    with (
        joined(head, runtime_env={"worker_process_setup_hook": hook}),
        pytest.raises(TemporaryError, match=told),
    ):
        flow.run(trec(folder, executor="ray_data"))
