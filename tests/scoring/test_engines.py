"""An engine is one file: a module dropped into the package is used, and nothing else names it."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.scoring import Scorer, ScorerConfig, engines
from pipeline.scoring.engines import torch as torch_engine
from tests.conftest import TINY

FAKE = '''
"""Scores a pair by the number of its tokens."""
from pipeline.scoring.engine import Computation

INSTALL = "put it in the engines' place"


def is_available():
    return {available}


def supports(family, checkpoint, config):
    if config.dtype != "float32":
        return "runs float32 alone"
    return None


def prepare(network, output, device, dtype):
    assert (output, device.type) == ("logits", "cpu")
    return Computation(lambda ids, mask, **inputs: mask.sum(dim=1, keepdim=True))
'''


def drop(name: str, path: Path, monkeypatch: pytest.MonkeyPatch, *, available: bool = True) -> None:
    (path / f"{name}.py").write_text(FAKE.format(available=available))
    monkeypatch.setattr(engines, "__path__", [*engines.__path__, str(path)])


def scorer(**options: object) -> Scorer:
    return Scorer(ScorerConfig.model_validate({"model": TINY, "device": "cpu", **options}))


def test_a_module_that_is_dropped_in_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drop("counting", tmp_path, monkeypatch)
    counting = scorer(engine="counting")
    pairs = [("a", "b"), ("a", "b c d"), ("a", "word " * 50)]
    np.testing.assert_array_equal(counting.score(pairs), counting.encode(pairs).tokens)
    with pytest.raises(ConfigError, match=r"^engine counting: runs float32 alone"):
        scorer(engine="counting", dtype="bfloat16")
    with pytest.raises(ConfigError, match=r"^engine counting: the family flag_llm is run by torch alone"):
        scorer(engine="counting", model=f"{TINY}-v2-gemma")


def test_one_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"^engine: no engine 'abacus'; there are openvino, torch"):
        scorer(engine="abacus")
    drop("elsewhere", tmp_path, monkeypatch, available=False)
    with pytest.raises(ConfigError, match=r"^engine elsewhere: is not installed here: put it in the engines"):
        scorer(engine="elsewhere")


def test_torch_is_there() -> None:
    assert torch_engine.is_available()
    assert torch_engine.INSTALL
