import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.errors import InputError
from pipeline.tables.candidates import plan_table, read_ids, read_shard
from pipeline.tables.config import InputConfig
from pipeline.tables.formats import trec
from tests.tables.conftest import plan, read_all

RUN = "q1 Q0 d1 1 9.5 bm25\nq1 Q0 d2 2 8.5 bm25\nq2 Q0 d1 1 7 bm25\n"


def collection(path: Path, run: str = RUN, texts: str = "jsonl") -> dict[str, Any]:
    (path / "run.trec").write_text(run)
    if texts == "tsv":
        (path / "queries.tsv").write_text("q1\tfirst\nq2\tsecond\n")
        (path / "passages.tsv").write_text("d1\tbody\nd2\tother\tbody\n")
    else:
        queries = [{"_id": "q1", "text": "first"}, {"_id": "q2", "text": "second"}]
        passages = [
            {"_id": "d1", "title": "Title", "text": "body"},
            {"_id": "d2", "title": "", "text": "other"},
        ]
        (path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
        (path / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in passages))
    return {"queries": str(path / f"queries.{texts}"), "passages": str(path / f"passages.{texts}")}


def test_ids_get_their_texts(tmp_path: Path) -> None:
    texts = collection(tmp_path)
    kept = {"first_rank": "rank", "first_score": "score"}
    good, bad = read_all(tmp_path / "run.trec", "trec", shard_pairs=1, kept=kept, **texts)
    assert [(row["query"], row["passage"]) for row in good] == [
        ("first", "Title body"), ("first", "other"), ("second", "Title body"),
    ]  # fmt: skip
    assert good[1]["kept"] == {"first_rank": 2, "first_score": 8.5}
    assert bad == []


def test_a_beir_folder_holds_the_texts(tmp_path: Path) -> None:
    passage = {"_id": "d1", "title": "Title", "text": "body", "metadata": {"url": "u"}}
    (tmp_path / "corpus.jsonl").write_text(json.dumps(passage) + "\n")
    query = {"_id": "q1", "text": "first", "metadata": {"answers": []}}
    (tmp_path / "queries.jsonl").write_text(json.dumps(query) + "\n")
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    (tmp_path / "run.trec").write_text("q1 Q0 d1 1 9.5 bm25\n")
    texts = {"queries": f"{tmp_path}/queries.jsonl", "passages": f"{tmp_path}/corpus.jsonl"}
    good, bad = read_all(tmp_path / "run.trec", "trec", 100, **texts)
    assert [(row["query"], row["passage"]) for row in good] == [("first", "Title body")]
    assert bad == []


def test_ids_alone_are_read_without_the_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = InputConfig(path=str(tmp_path / "run.trec"), format="trec", **collection(tmp_path))
    planned = plan_table(config, {}, 100)
    whole, rejects = read_shard(planned.shards[0], config, {}, planned)
    monkeypatch.setattr(trec, "read_texts", None)
    ids = read_ids(planned.shards[0], config, {}, planned, rejects)
    assert ids.equals(whole.select(["query_id", "passage_id"]))


def test_texts_may_be_tab_separated(tmp_path: Path) -> None:
    good, _ = read_all(tmp_path / "run.trec", "trec", **collection(tmp_path, texts="tsv"))
    assert [row["passage"] for row in good] == ["body", "other\tbody", "body"]


def test_ids_without_a_text_and_broken_lines_are_rejected(tmp_path: Path) -> None:
    texts = collection(tmp_path, RUN + "q2 Q0 d9 2 6 bm25\nq2 Q0 d2\nq9 Q0 d1 1 1 bm25\n")
    good, bad = read_all(tmp_path / "run.trec", "trec", **texts)
    assert len(good) == 3
    assert [(row["row"], row["reason"]) for row in bad] == [
        (4, "no_passage_text"), (5, "malformed_row"), (6, "no_query_text"),
    ]  # fmt: skip


@pytest.mark.parametrize("shard_pairs", [1, 100])
def test_lines_of_texts_that_can_not_be_used_are_told_once(tmp_path: Path, shard_pairs: int) -> None:
    """And the candidates that need them, in the shards where they stand."""
    texts = collection(tmp_path, RUN + "q2 Q0 d3 2 6 bm25\nq3 Q0 d1 1 1 bm25\n")
    with (tmp_path / "passages.jsonl").open("a") as stream:
        stream.write('{"_id": "d3", "text": 3}\n{"_id": "d4", "te')
    with (tmp_path / "queries.jsonl").open("a") as stream:
        stream.write('{"text": "third"}\n')
    for top_k in (None, 1):
        good, bad = read_all(tmp_path / "run.trec", "trec", shard_pairs, top_k=top_k, **texts)
        assert len(good) == (3 if top_k is None else 2)
        found = [(row["file"].rpartition("/")[2], row["row"], row["reason"], row["field"]) for row in bad]
        assert sorted(found) == [
            ("passages.jsonl", 3, "invalid_text", "passage"),
            ("passages.jsonl", 4, "malformed_row", None),
            ("queries.jsonl", 3, "null_query_id", None),
            ("run.trec", 4, "no_passage_text", None),
            ("run.trec", 5, "no_query_text", None),
        ]


def test_texts_that_are_not_there_are_named(tmp_path: Path) -> None:
    texts = collection(tmp_path)
    (tmp_path / "queries.jsonl").unlink()
    with pytest.raises(InputError, match=r"queries.jsonl: no such file"):
        plan(tmp_path / "run.trec", "trec", **texts)


def test_a_file_that_is_no_run_is_named(tmp_path: Path) -> None:
    texts = collection(tmp_path, "hello world\n")
    with pytest.raises(InputError, match=r"run.trec: holds no line of a TREC run"):
        plan(tmp_path / "run.trec", "trec", **texts)


def test_texts_go_with_trec_only(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="give queries and passages"):
        plan(tmp_path, "trec")
    with pytest.raises(ValidationError, match="parquet tables hold the texts"):
        plan(tmp_path, "parquet", queries="q.jsonl")


def test_the_texts_are_part_of_the_inputs_identity(tmp_path: Path) -> None:
    texts = collection(tmp_path)
    before = plan(tmp_path / "run.trec", "trec", **texts)
    assert len(before.identities()) == 3
    with (tmp_path / "passages.jsonl").open("a") as stream:
        stream.write('{"_id": "d3", "text": "new"}\n')
    assert plan(tmp_path / "run.trec", "trec", **texts).identities() != before.identities()


@pytest.mark.parametrize("texts", ["tsv", "jsonl"])
def test_byte_order_marks_and_blank_lines(tmp_path: Path, texts: str) -> None:
    options = collection(tmp_path, texts=texts)
    expected, _ = read_all(tmp_path / "run.trec", "trec", **options)
    for name in ("run.trec", f"queries.{texts}", f"passages.{texts}"):
        first, *others = (tmp_path / name).read_text().splitlines()
        # Another mark stands where files were joined.
        text = "\r\n".join(["\ufeff" + first, "", "\ufeff" + others[0], *others[1:], "", ""])
        (tmp_path / name).write_bytes(text.encode())
    good, bad = read_all(tmp_path / "run.trec", "trec", shard_pairs=1, **options)
    assert [(row["query"], row["passage"]) for row in good] == [
        (row["query"], row["passage"]) for row in expected
    ]
    assert [row["row"] for row in good] == [1, 3, 4]
    assert bad == []


@pytest.mark.parametrize(("rank", "kept"), [("3", 3), ("3.0", 3), ("1e1", 10), ("-1", -1), ("0", 0)])
def test_a_rank_is_an_integer_however_it_is_written(tmp_path: Path, rank: str, kept: int) -> None:
    texts = collection(tmp_path, f"q1 Q0 d1 {rank} 9.5 bm25\n")
    good, _ = read_all(tmp_path / "run.trec", "trec", kept={"rank_before": "rank"}, **texts)
    assert [row["kept"]["rank_before"] for row in good] == [kept]


@pytest.mark.parametrize("rank", ["3.5", "nan", "inf", "first", "1_0", "3000000000"])
def test_a_rank_that_is_none_is_a_malformed_row(tmp_path: Path, rank: str) -> None:
    texts = collection(tmp_path, f"q1 Q0 d1 {rank} 9.5 bm25\nq1 Q0 d2 2 9.5 bm25\n")
    good, bad = read_all(tmp_path / "run.trec", "trec", **texts)
    assert (len(good), [row["reason"] for row in bad]) == (1, ["malformed_row"])


@pytest.mark.parametrize(("score", "reasons"), [("nan", ["malformed_row"]), ("-inf", []), ("-1e-3", [])])
def test_a_score_that_has_no_place_is_a_malformed_row(tmp_path: Path, score: str, reasons: list[str]) -> None:
    texts = collection(tmp_path, f"q1 Q0 d1 1 9.5 bm25\nq1 Q0 d2 2 {score} bm25\n")
    good, bad = read_all(tmp_path / "run.trec", "trec", **texts)
    assert (len(good), [row["reason"] for row in bad]) == (2 - len(reasons), reasons)


def test_the_scores_order_a_query_whatever_its_lines_and_ranks_say(tmp_path: Path) -> None:
    run = "q1 Q0 d1 1 8.5 bm25\nq1 Q0 d2 9 9.5 bm25\nq2 Q0 d1 1 7 bm25\nq2 Q0 d2 2 7 bm25\n"
    texts = collection(tmp_path, run)
    good, _ = read_all(tmp_path / "run.trec", "trec", **texts)
    assert [(row["query_id"], row["passage_id"]) for row in good] == [
        ("q1", "d2"), ("q1", "d1"), ("q2", "d2"), ("q2", "d1"),
    ]  # fmt: skip
    best, _ = read_all(tmp_path / "run.trec", "trec", top_k=1, **texts)
    assert [(row["query_id"], row["passage_id"]) for row in best] == [("q1", "d2"), ("q2", "d2")]


def test_the_best_of_a_query_are_found_in_all_its_files(tmp_path: Path) -> None:
    texts = collection(tmp_path, "q1 Q0 d1 1 8.5 bm25\n")
    (tmp_path / "run2.trec").write_text("q1 Q0 d2 1 9.5 bm25\n")
    best, _ = read_all(f"{tmp_path}/run*.trec", "trec", top_k=1, **texts)
    assert [row["passage_id"] for row in best] == ["d2"]
