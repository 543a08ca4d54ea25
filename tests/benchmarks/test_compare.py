"""What `compare.py` says of two results of `make bench`."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare import main
from tests.conftest import ROOT


def result(folder: Path, name: str, ratios: dict[str, float], machine: str = "a chip") -> str:
    found: dict[str, Any] = {"ratios": ratios, "machine": machine}
    (folder / name).write_text(json.dumps(found))
    return str(folder / name)


@pytest.mark.parametrize(
    ("now", "status", "told"),
    [
        ({"a / b": 0.81, "c / d": 2.0}, 0, ""),
        ({"a / b": 0.79, "c / d": 2.0}, 1, "SLOWER  a / b: was 0.900, is 0.790, 12% less"),
        ({"a / b": 1.4}, 1, "SLOWER  c / d: was 2.000, and was not measured"),
    ],
)
def test_a_tenth_is_noise_and_more_is_told_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], now: dict[str, float], status: int, told: str
) -> None:
    old = result(tmp_path, "old.json", {"a / b": 0.9, "c / d": 2.0})
    assert main([old, result(tmp_path, "new.json", now)]) == status
    assert [line for line in capsys.readouterr().out.splitlines() if "SLOWER" in line] == [told][: bool(told)]


def test_another_machine_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = (result(tmp_path, name, {"a / b": 1.0}, machine=name) for name in ("old", "new"))
    assert main([old, new]) == 0
    assert "on another machine: new, was old" in capsys.readouterr().out


def test_the_results_that_are_kept_can_be_compared() -> None:
    kept = str(ROOT / "benchmarks/results.json")
    assert main([kept, kept]) == 0
