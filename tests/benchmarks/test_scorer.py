from pathlib import Path

import numpy as np
import pytest

from benchmarks.scorer import make_checkpoint, model_config, ours
from pipeline.scoring import ScorerConfig


@pytest.mark.parametrize("embedder", [False, True])
def test_scorer_loads_what_is_measured(tmp_path: Path, *, embedder: bool) -> None:
    """The checkpoint of scorer.py, bench.py and serve.py, narrower."""
    make_checkpoint(tmp_path, model_config(24), embedder=embedder)
    config = ScorerConfig(
        model=str(tmp_path), family="bi_encoder" if embedder else None, device="cpu", max_length=512
    )
    texts = (
        ["a wing lifts", "heat flows"] if embedder else [("what is a wing", "a wing lifts"), ("heat", "x")]
    )
    found = np.asarray(ours(config, embedder=embedder)(texts))
    assert len(found) == 2
    assert np.isfinite(found).all()
