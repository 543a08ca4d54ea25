"""examples/show_best.py, by its command line."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ([], 2, "the following arguments are required: output, query_id"),
        (["."], 2, "the following arguments are required: query_id"),
        ([".", "q02"], 1, ".: has no run/: it is no output of `pipeline.rerank`"),
    ],
)
def test_a_mistake_is_told_in_a_line(tmp_path: Path, arguments: list[str], status: int, told: str) -> None:
    command = [sys.executable, str(ROOT / "examples/show_best.py"), *arguments]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == status
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
