"""What a script that is started by its file says where something lacks: words, no traceback."""

import runpy
import sys

import pytest

from benchmarks import bench
from tests.conftest import ROOT


def start(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(str(ROOT / "benchmarks" / script), run_name="__main__")


def test_an_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(SystemExit, match="the extra openvino is not installed"):
        start(monkeypatch, "engines.py", "--help")


def test_a_peer_whose_losses_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "FlagEmbedding", None)
    with pytest.raises(SystemExit, match=r"FlagEmbedding 1\.4\.2 is not installed"):
        start(monkeypatch, "flag_embedding_losses.py", "--help")


def test_a_peer_that_make_bench_compares_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "find_spec", lambda _name: None)
    monkeypatch.setattr(sys, "argv", ["bench.py"])
    with pytest.raises(SystemExit, match="2"):
        bench.main()
    assert "sentence-transformers is compared with, and not installed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "arguments", "told"),
    [
        ("retrieve.py", ["embed"], "embed: needs a collection: DIR"),
        ("attention.py", ["--dtype", "foo"], "argument --dtype: invalid choice: 'foo'"),
    ],
)
def test_arguments(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str,
    arguments: list[str],
    told: str,
) -> None:
    with pytest.raises(SystemExit, match="2"):
        start(monkeypatch, script, *arguments)
    assert told in capsys.readouterr().err
