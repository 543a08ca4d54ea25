"""What `compare.py` says of two results of `make bench`."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare import main
from tests.conftest import ROOT


def result(folder: Path, name: str, ratios: dict[str, float], **others: Any) -> str:
    """Of each ratio the rounds are a tenth around it, unless `others` say more."""
    found: dict[str, Any] = {
        "ratios": ratios,
        "rounds": {each: [ratio * share for share in (0.95, 1.0, 1.05)] for each, ratio in ratios.items()},
        "machine": "a chip",
        "versions": {"torch": "2"},
        "config": {"pairs": 64},
    }
    (folder / name).write_text(json.dumps(found | others))
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
    old, new = (
        result(tmp_path, name, {"a / b": 1.0}, machine=name, versions={"torch": name})
        for name in ("old", "new")
    )
    assert main([old, new]) == 0
    told = capsys.readouterr().out
    assert "on another machine: new, was old\nanother version: torch new, was old\n" in told


def test_what_the_old_run_had_in_a_round_is_no_fall(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that is told as slower than itself would be of no use."""
    old = result(tmp_path, "old", {"a / b": 1.0}, rounds={"a / b": [0.8, 0.9, 1.0, 1.1, 1.2]})
    assert main([old, result(tmp_path, "new", {"a / b": 0.8})]) == 0
    assert main([old, result(tmp_path, "new", {"a / b": 0.79})]) == 1
    assert "SLOWER  a / b: was 1.000, is 0.790, 21% less" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ratios", "others", "told"),
    [
        ({"a / b": float("nan")}, {}, "new: is no result of `make bench`: a ratio or a field lacks"),
        ({}, {}, "new: is no result of `make bench`: a ratio or a field lacks"),
        ({"a / b": 1.0}, {"rounds": {"a / b": []}}, "new: is no result of `make bench`: a ratio or a field"),
        ({"a / b": 1.0}, {"rounds": {}}, "new: is no result of `make bench`: KeyError"),
        (
            {"a / b": 1.0},
            {"config": {"pairs": 8}},
            "new: is of another config: {'pairs': 8}, was {'pairs': 64}",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    ratios: dict[str, float],
    others: dict[str, Any],
    told: str,
) -> None:
    old = result(tmp_path, "old", {"a / b": 1.0})
    with pytest.raises(SystemExit, match="2"):
        main([old, result(tmp_path, "new", ratios, **others)])
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["OLD", "nowhere"], "nowhere: No such file or directory"),
        (["OLD", "BROKEN"], "is no result of `make bench`: JSONDecodeError"),
        (["OLD", "OLD", "--allowed", "10"], "--allowed: invalid share value: '10'"),
        (["OLD", "OLD", "--allowed", "nan"], "--allowed: invalid share value: 'nan'"),
    ],
)
def test_a_mistake_is_told_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    (tmp_path / "broken").write_text('{"ratios"')
    files = {"OLD": result(tmp_path, "old", {"a / b": 1.0}), "BROKEN": str(tmp_path / "broken")}
    with pytest.raises(SystemExit, match="2"):
        main([files.get(each, each) for each in arguments])
    assert told in capsys.readouterr().err


def test_the_results_that_are_kept_can_be_compared() -> None:
    kept = str(ROOT / "benchmarks/results.json")
    assert main([kept, kept]) == 0
