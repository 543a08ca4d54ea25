"""BM25 against bm25s, and against itself with other shards."""

import random
from pathlib import Path

import bm25s
import numpy as np
import pytest

from pipeline.retrieval.tokens import TokensConfig, tokenize
from tests.retrieval.tables import config, make, rows_of, write_texts

WORDS = [f"w{number}" for number in range(30)] + ["熊", "猫", "熊猫"]


def collection(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Passages of which some are empty or equal, and queries of which one matches nothing."""
    chance = random.Random(7)
    passages = {
        f"p{number:03d}": " ".join(chance.choices(WORDS, k=chance.randint(1, 40))) for number in range(200)
    }
    passages |= {"p200": passages["p007"], "p007b": passages["p007"]}
    queries = {f"q{number}": " ".join(chance.choices(WORDS, k=5)) for number in range(20)}
    queries |= {"none": "unheard of", "twice": "w1 w1 w2", "empty": ""}
    write_texts(folder, passages, queries)
    return passages, queries


def test_scores_are_those_of_bm25s(tmp_path: Path) -> None:
    passages, queries = collection(tmp_path)
    make(config(tmp_path, shard_passages=17, output={"top_k": 300}))
    peer = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    peer.index([tokenize(text, TokensConfig()) for text in passages.values()], show_progress=False)
    found = rows_of(tmp_path)
    for query_id, query in queries.items():
        words = [word for word in tokenize(query, TokensConfig()) if word in peer.vocab_dict]
        expected = peer.get_scores(words) if words else np.zeros(len(passages), np.float32)
        scores = dict.fromkeys(passages, 0.0)
        scores |= {
            row["passage_id"]: row["first_stage_score"] for row in found if row["query_id"] == query_id
        }
        np.testing.assert_allclose(list(scores.values()), expected, rtol=1e-5)


@pytest.mark.parametrize("shard_passages", [1, 50, 1000])
def test_the_result_does_not_depend_on_the_shards(tmp_path: Path, shard_passages: int) -> None:
    collection(tmp_path)
    make(config(tmp_path, shard_passages=17))
    again = tmp_path / "again"
    make(config(tmp_path, shard_passages=shard_passages, output={"path": str(again)}))
    assert rows_of(again, "candidates") == rows_of(tmp_path)


def test_ties_rank_by_passage_id_and_no_match_is_no_candidate(tmp_path: Path) -> None:
    passages = {"b": "panda", "a": "panda", "c": "bear", "d": "", "e": "panda"}
    write_texts(tmp_path, passages, {"q1": "Panda?", "q2": "unheard of"})
    summary = make(config(tmp_path, shard_passages=2, output={"top_k": 2}))
    ranked = [(row["query_id"], row["passage_id"], row["first_stage_rank"]) for row in rows_of(tmp_path)]
    assert ranked == [("q1", "a", 1), ("q1", "b", 2)]
    assert (summary.queries, summary.unmatched, summary.candidates) == (2, 1, 2)
    assert rows_of(tmp_path / "out", "unmatched") == [{"query_id": "q2"}]
