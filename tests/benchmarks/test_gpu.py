"""gpu.py's every part runs, on a CPU with tiny shapes: that its numbers are none is known."""

from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu_run import Lines, Run


@pytest.mark.ray  # starts processes of its own and waits for them
def test_every_part_runs_and_finds_the_scores_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUT", str(tmp_path))
    status = gpu.main(["--device", "cpu", "--tiny", "--only", *gpu.PARTS])
    (note,) = tmp_path.glob("gpu-*.md")
    text = note.read_text()
    assert status == 0, text
    assert all(f"\n## {part}\n" in text for part in gpu.PARTS)
    assert "left out" not in text
    assert text.count("| right |") == 18
    assert "Budget 4194304, then " in text
    assert text.split("## Two replicas")[1].split("##")[0].count("| 2 |") == 1
    assert text.count("| trained | 2 |") == 1
    assert note.name in capsys.readouterr().out


def test_a_part_ends_when_its_time_is_out_and_another_part_has_its_own() -> None:
    def endless(_run: Run) -> Lines:
        yield "one"
        while True:
            pass

    def failing(_run: Run) -> Lines:
        yield "two"
        raise ValueError("no such card")

    run = Run("cpu", tiny=True, folder=Path())
    assert list(gpu.lines_of(run, 1, endless)) == ["one", "\nThe rest was left out: its 1 s were over."]
    assert list(gpu.lines_of(run, 9, failing)) == ["two", "\n**FAILED**: ValueError: no such card"]
