"""gpu.py's every part runs, on a CPU with tiny shapes: that its numbers are none is known."""

import os
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_models import DECODERS, Decoding
from benchmarks.gpu_run import Lines, Run
from benchmarks.gpu_speed import encoders


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
    assert text.count("| right |") == 23
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


def test_a_model_is_gone_before_the_next_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its weights would be in the next one's peak."""
    seen: list[Any] = []
    alive = []

    def measure(_run: Run, work: Any, rounds: int = 2) -> tuple[float, str]:
        work()
        model = work.func.__self__
        if all(each() is not model for each in seen):
            alive.append(sum(each() is not None for each in seen))
            seen.append(weakref.ref(model))
        return 1.0, f"{rounds}"

    monkeypatch.setattr(Run, "best_seconds", measure)
    monkeypatch.setattr(Run, "ceiling", lambda _run: 1.0)
    assert list(encoders(Run("cpu", tiny=True, folder=tmp_path)))
    assert len(alive) >= 3
    assert not any(alive)


def test_layers_above_a_cutoff_are_not_made() -> None:
    decoding = Decoding(DECODERS["minicpm-2.4b"], 2, "cpu", "float32", tiny=True)
    assert len(decoding._backbone.layers) == 2
    assert decoding.flop() == Decoding(DECODERS["minicpm-2.4b"], 1, "cpu", "float32", tiny=True).flop() * 2


def test_a_card_that_is_named_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that what is set below is taken back
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpu.one_card("cuda") == "cuda"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert gpu.one_card("cuda:1") == "cuda"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert gpu.one_card("cuda:1") == "cuda"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"
    assert gpu.one_card("cpu") == "cpu"


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("mps", "mps: is no CUDA device"),
        ("cuda:x", "cuda:x: is no CUDA device"),
        ("cuda:2", "cuda:2: CUDA_VISIBLE_DEVICES names 2 of the cards: 4,7"),
        ("cuda", "cuda: no such card here; --device cpu --tiny"),
    ],
)
def test_what_is_no_card_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], device: str, told: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--device", device])
    assert f"--device {told}" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_card_without_bfloat16_computes_in_float16(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    monkeypatch.setattr("benchmarks.gpu_run.fastest_dtype", lambda _device: dtype)
    assert Run("cuda", tiny=True, folder=Path()).dtype == dtype
    assert Run("cpu", tiny=True, folder=Path()).dtype == "float32"
