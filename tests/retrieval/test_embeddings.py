"""How far embedding is. The embeddings themselves: test_dense.py."""

import pytest

from pipeline.retrieval.embeddings import Progress


def test_a_log_hears_of_it_every_half_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rayrank")
    seconds = iter((0, 10, 31, 40, 62, 70))
    progress = Progress("minilm", "passages", 1400, clock=lambda: next(seconds))
    for share in (0.1, 0.25, 0.3, 0.5, 1.0):
        progress(share)
    assert caplog.messages == [
        "embedding source=minilm of=passages texts=1400 done=25% left=0:01:33",
        "embedding source=minilm of=passages texts=1400 done=50% left=0:01:02",
    ]
