"""What a reranker reads of a collection's pools, in training and in a job."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.pools import LEVELS, SCALE, read_pools, with_numbers, write_candidates, write_rows, write_run

POOLS = {"q1": ["a", "b", "c"], "q2": ["c"]}


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Scores of q1: 9, 6 and 5."""
    folder = tmp_path / "collection"
    folder.mkdir()
    write(folder / "docs.jsonl", [{"_id": each, "title": "", "text": f"{each}!"} for each in "abc"])
    write(folder / "queries.jsonl", [{"_id": each, "text": f"what is {each}?"} for each in POOLS])
    (folder / "run.bm25.txt").write_text(
        "q1 Q0 a 1 9 bm25\nq1 Q0 b 2 6 bm25\nq1 Q0 c 3 5 bm25\nq2 Q0 c 1 3 bm25\n"
    )
    return folder


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_number_tells_where_a_score_lies_between_the_lowest_and_the_highest() -> None:
    assert with_numbers(["x", "y", "z"], np.array([5.0, 9.0, 6.0])) == [
        "0 x",
        f"{LEVELS} y",
        f"{LEVELS // 4} z",
    ]


@pytest.mark.parametrize("with_scores", [False, True])
def test_a_row_has_the_run_s_scores_where_they_teach(
    collection: Path, tmp_path: Path, with_scores: bool
) -> None:
    file = tmp_path / "rows.jsonl"
    write_rows(file, {"q1": ["a", "b"]}, {"q1": {"b"}}, collection, with_scores=with_scores)
    row = {"query": "what is q1?", "pos": ["b!"], "neg": ["a!"]}
    scores = {"pos_scores": [round(6 / 9 * SCALE, 4)], "neg_scores": [SCALE]} if with_scores else {}
    assert json.loads(file.read_text()) == row | scores


def test_a_row_and_a_job_have_the_same_numbers_before_the_passages(collection: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_rows(file, {"q1": POOLS["q1"]}, {"q1": {"b"}}, collection, read_scores=True)
    row = json.loads(file.read_text())
    assert row == {"query": "what is q1?", "pos": ["5 b!"], "neg": ["20 a!", "0 c!"]}
    found = write_candidates(tmp_path / "candidates.jsonl", POOLS, collection)
    assert found == {"path": str(tmp_path / "candidates.jsonl"), "format": "jsonl"}
    rows = [json.loads(line) for line in Path(found["path"]).read_text().splitlines()]
    assert [(each["query_id"], each["passage_id"], each["passage"]) for each in rows] == [
        ("q1", "a", "20 a!"),
        ("q1", "b", "5 b!"),
        ("q1", "c", "0 c!"),
        ("q2", "c", "20 c!"),
    ]
    assert {each["query"] for each in rows} == {"what is q1?", "what is q2?"}


def test_without_numbers_a_passage_is_read_as_it_is(collection: Path, tmp_path: Path) -> None:
    assert [*read_pools(collection, {"q2": ["c"]}, read_scores=False)] == [
        ("q2", "what is q2?", [("c", "c!", 3.0)])
    ]
    found = write_run(tmp_path / "pool.trec", POOLS, collection)
    assert found["queries"] == str(collection / "queries.jsonl")
    assert found["passages"] == str(collection / "docs.jsonl")
    assert [line.split()[2:4] for line in Path(found["path"]).read_text().splitlines()] == [
        ["a", "1"],
        ["b", "2"],
        ["c", "3"],
        ["c", "1"],
    ]
