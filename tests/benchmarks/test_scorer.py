import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scorer import PEER_SIZES, best_size, make_checkpoint, model_config, of_peer, ours
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


def test_a_peer_takes_its_turn_at_its_fastest_batch_size(capsys: pytest.CaptureFixture[str]) -> None:
    called = []

    def peer(pairs: list[tuple[str, str]], batch_size: int = 32) -> list[float]:
        called.append((len(pairs), batch_size))
        time.sleep(0 if batch_size == 8 else 0.01)
        return [0.0] * len(pairs)

    pairs = [("q", "p")] * 100
    assert best_size("peer", peer, pairs) == 8
    assert called == [(8, 32), *((64, size) for size in PEER_SIZES)]
    assert "peer, pairs/s by batch size: 1: " in capsys.readouterr().out
    systems = of_peer("peer", peer, pairs)
    assert [*systems] == ["peer", "peer, 8"]
    systems["peer, 8"](pairs)
    assert called[-1] == (100, 8)
