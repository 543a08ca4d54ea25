"""What holds for every dialect, over real HTTP."""

import httpx2

from tests.serve.dialects.reference import scores

QUERY = "what is a panda?"
PASSAGES = ["hi", "The giant panda is a bear.", "", "Pandas eat bamboo."]


def test_every_dialect_gives_the_scores_of_the_scorer(client: httpx2.Client) -> None:
    raw = client.post("/rerank", json={"query": QUERY, "texts": PASSAGES, "raw_scores": True}).json()
    assert {entry["index"]: entry["score"] for entry in raw} == scores(QUERY, PASSAGES)
