"""What is told of embedding, and what it refuses to keep. The embeddings themselves: test_dense.py."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.retrieval.embeddings import Progress
from pipeline.scoring import Scorer, ScorerConfig
from tests.conftest import MINILM
from tests.retrieval.checkpoints import large_embedder
from tests.retrieval.tables import config, make, rows_of, write_jsonl, write_texts


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


def test_the_log_tells_what_is_embedded_and_the_longest_names_and_lists_have_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "rayrank")
    rows = [{"_id": name, "text": name} for name in ("panda", "bridge", "panda")]
    write_jsonl(tmp_path / "corpus.jsonl", rows)
    write_jsonl(tmp_path / "queries.jsonl", rows[:2])
    words, embeds, most = "w" * 64, "e" * 64, 2**31 - 1
    sources = {
        words: {"bm25": {}, "top_k": most},
        embeds: {"dense": {"scorer": {"model": MINILM, "device": "cpu"}}, "top_k": most},
    }
    output = {"top_k": most, "trec_run": True}
    summary = make(config(tmp_path, sources=sources, output=output, leave_out_self=True))
    assert (summary.candidates, summary.rejected) == (2, {"duplicate_passage_id": 1})
    assert f"embedding source={embeds} passages=2 queries=2 shards=2" in caplog.messages


def test_what_float16_has_no_room_for_is_refused_before_it_is_written(tmp_path: Path) -> None:
    model = large_embedder(tmp_path / "model", 1e6)
    embedding = Scorer(ScorerConfig(model=model, device="cpu")).embed(["what is a panda?"], "passage")
    assert abs(embedding).max() > 65504
    write_texts(tmp_path, {"p1": "what is a panda?"}, {"q": "a bear"})
    wide, narrow = (
        config(
            tmp_path,
            sources={"e": {"dense": {"scorer": {"model": model, "device": "cpu"}, "dtype": dtype}}},
            output={"path": str(tmp_path / dtype)},
        )
        for dtype in ("float32", "float16")
    )
    assert make(wide).candidates == 1
    told = r"corpus.jsonl row 1: passage 'p1': its embedding is too large for sources.e.dense.dtype float16"
    with pytest.raises(InputError, match=told):
        make(narrow)
    assert not (tmp_path / "float16/embeddings").exists()


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_vectors_whose_products_float32_has_no_room_for_are_refused(tmp_path: Path, similarity: str) -> None:
    """Their scores were 0, infinite or none, and an infinite one found nothing."""
    write_texts(tmp_path, {"p1": "panda", "p2": "stone"}, {"q": "a bear"})
    large, larger = (
        config(
            tmp_path,
            sources={"e": {"dense": {"scorer": {"model": model, "device": "cpu"}}}},
            output={"path": str(tmp_path / f"out {times}")},
        )
        for times in (1e17, 2.5e18)
        for model in [large_embedder(tmp_path / f"{times}", times, similarity)]
    )
    assert make(large).candidates == 2
    scores = [row["first_stage_score"] for row in rows_of(tmp_path, "out 1e+17/candidates")]
    assert np.isfinite(scores).all()
    assert scores[0] > scores[1]
    told = (
        r"corpus.jsonl row 1: passage 'p1': its embedding has the length 1.4e\+19. Those of more than 1e\+19"
        r" can't be compared in float32: take a sources.e.dense.scorer.model that normalizes its embeddings"
    )
    with pytest.raises(InputError, match=told):
        make(larger)
    assert not (tmp_path / "out 2.5e+18/embeddings").exists()
