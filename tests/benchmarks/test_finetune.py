"""Which queries `finetune.py` trains on and which it holds out, and what a warm-up's passages are."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.finetune import fused, held_out
from benchmarks.warm_up import read_but
from benchmarks.warm_up_fusion import pieces

QUERIES = [f"q{number}" for number in range(10)]


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Ten queries with a relevant passage, of which the last one's is not in its pool."""
    folder = tmp_path / "collection"
    folder.mkdir()
    write(folder / "queries.jsonl", [{"_id": query, "text": f"what is {query}?"} for query in QUERIES])
    (folder / "qrels.txt").write_text("".join(f"{query} 0 yes 1\n" for query in QUERIES))
    pools = {query: ["no", "yes"] if query != "q9" else ["no", "nor"] for query in QUERIES}
    (folder / "run.bm25.txt").write_text(
        "".join(
            f"{query} Q0 {passage} {rank} {1 / rank} bm25\n"
            for query, pool in pools.items()
            for rank, passage in enumerate(pool, start=1)
        )
    )
    return folder


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def options(
    folds: int | None = None, train_on: Path | None = None, hold_out: Path | None = None
) -> Namespace:
    return Namespace(pool=10, folds=folds, train_on=train_on, hold_out=hold_out)


def test_what_a_warm_up_read_is_trained_on_and_all_others_are_held_out(
    collection: Path, tmp_path: Path
) -> None:
    read = write(tmp_path / "rows.jsonl", [{"query": f"what is {each}?"} for each in ("q1", "q4", "q9", "x")])
    usable, parts, relevant = held_out(collection, options(train_on=read))
    assert sorted(usable) == QUERIES[:9], "a query without a relevant passage in its pool teaches nothing"
    assert [sorted(part) for part in parts] == [["q0", "q2", "q3", "q5", "q6", "q7", "q8"]]
    assert usable["q0"] == ["no", "yes"]
    assert relevant["q0"] == {"yes"}


def test_what_a_file_names_is_held_out_and_all_others_are_trained_on(
    collection: Path, tmp_path: Path
) -> None:
    named = write(
        tmp_path / "rows.jsonl", [{"query": f"what is {each}?"} for each in ("q1", "q4", "q9", "x")]
    )
    _, parts, _ = held_out(collection, options(hold_out=named))
    assert [sorted(part) for part in parts] == [["q1", "q4"]]


def test_a_warm_up_reads_none_of_the_queries_that_are_left_out() -> None:
    found = [(["one", "two"], ["a"]), (["three"], ["b"]), (["four"], ["c"])]
    assert [*read_but({"two", "three"}, iter(found))] == [(["one"], ["a"]), (["four"], ["c"])]


@pytest.mark.parametrize(("read", "share"), [(["x"], "none"), (QUERIES, "all")])
def test_a_file_that_leaves_nothing_to_train_on_or_to_hold_out_is_refused(
    collection: Path, tmp_path: Path, read: list[str], share: str
) -> None:
    file = write(tmp_path / "rows.jsonl", [{"query": f"what is {each}?"} for each in read])
    with pytest.raises(ValueError, match=f"rows.jsonl has {share} of collection's 9 queries"):
        held_out(collection, options(train_on=file))
    with pytest.raises(ValueError, match=f"rows.jsonl has {share} of collection's 9 queries"):
        held_out(collection, options(hold_out=file))


def test_each_query_is_held_out_by_one_fold(collection: Path) -> None:
    usable, parts, _ = held_out(collection, options(folds=3))
    assert sorted(query for part in parts for query in part) == sorted(usable)
    assert [len(part) for part in parts] == [3, 3, 3]


def test_without_folds_a_fifth_is_held_out(collection: Path) -> None:
    usable, parts, _ = held_out(collection, options())
    assert [len(part) for part in parts] == [2]
    assert {*parts[0]} < {*usable}


def test_pieces_have_all_words_once_and_at_most_sixty_of_them() -> None:
    words = [str(number) for number in range(130)]
    assert [piece.split() for piece in pieces(" ".join(words))] == [words[:60], words[60:120], words[120:]]


def test_fused_scores_are_between_0_and_1_in_each_query_and_summed(tmp_path: Path) -> None:
    (tmp_path / "run.bm25.txt").write_text(
        "q1 Q0 a 1 9 bm25\nq1 Q0 b 2 6 bm25\nq1 Q0 c 3 5 bm25\nq2 Q0 a 1 3 bm25\n"
    )
    run = tmp_path / "run.trec"
    run.write_text("q1 Q0 b 1 0.5 x\nq1 Q0 c 2 -1 x\nq1 Q0 a 3 -1.5 x\nq2 Q0 a 1 7 x\n")
    assert Path(fused(tmp_path, run, tmp_path / "out.trec")).read_text().splitlines() == [
        "q1 Q0 b 1 1.250000 fused",
        "q1 Q0 c 3 0.250000 fused",
        "q1 Q0 a 2 1.000000 fused",
        "q2 Q0 a 1 2.000000 fused",
    ]
