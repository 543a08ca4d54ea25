"""What holds for every dialect, over real HTTP."""

import httpx2
import pytest

from pipeline.scoring import Scorer, ScorerConfig
from tests.conftest import TINY

QUERY = "what is a panda?"
PASSAGES = ["hi", "The giant panda is a bear.", "", "Pandas eat bamboo."]


def test_every_dialect_gives_the_scores_of_the_scorer(client: httpx2.Client) -> None:
    scorer = Scorer(ScorerConfig(model=TINY, device="cpu"))
    expected = scorer.score([(QUERY, passage) for passage in PASSAGES])
    raw = client.post("/rerank", json={"query": QUERY, "texts": PASSAGES, "raw_scores": True}).json()
    assert {entry["index"]: entry["score"] for entry in raw} == pytest.approx(
        dict(enumerate(expected)), abs=1e-5
    )
