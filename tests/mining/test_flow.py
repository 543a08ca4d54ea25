"""Mining in this process, from a run to training rows; executors/test_ray_data.py has it on Ray."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline import mine
from pipeline.errors import InputError, OutputError
from pipeline.mining import flow, shard
from pipeline.mining.config import MineConfig, NegativesConfig
from pipeline.reranking import flow as reranking
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.lease import last_heartbeat
from pipeline.tables.output.tasks import TaskReport
from tests.conftest import ROOT, golden_cases
from tests.mining.runs import bytes_of, config, mined, rows, write
from tests.reranking.jobs import config as rerank
from tests.tables.conftest import read_all


def test_a_run_becomes_training_rows(tmp_path: Path) -> None:
    table = rows()
    table[0]["score"] = None  # neither a negative nor a rank
    for row in table[40:]:  # of q5
        row["label"] = 0
    negatives = {"ranks": [2, 4], "number": 2, "sampling": "top"}
    summary = flow.run(config(write(tmp_path / "in", table), negatives=negatives))
    made = mined(tmp_path / "out")
    assert made["query 1"] == {
        "query": "query 1",
        "pos": ["passage 1 of 1"],
        "neg": ["passage 2 of 1", "passage 3 of 1"],
        "pos_scores": [0.9],
        "neg_scores": [0.8, 0.7],
    }
    assert made["query 0"]["neg"] == ["passage 2 of 0", "passage 3 of 0"]
    assert len(made) == summary.rows == 5
    assert (summary.queries, summary.candidates, summary.positives, summary.negatives) == (6, 48, 5, 10)
    assert (summary.left_out, summary.named) == ({"no_positive": 1}, {"no_positive": ["q5"]})
    assert summary.short == 0
    assert "1 no_positive: no candidate of the query is a positive (q5)" in summary.as_text()
    unmatched = pq.read_table(tmp_path / "out/unmatched").to_pylist()
    assert unmatched == [{"query_id": "q5", "reason": "no_positive"}]
    good, bad = read_all(tmp_path / "out/training_rows", "flag_embedding")
    assert (len(good), bad) == (15, [])
    with pytest.raises(InputError, match=r"is a whole output; its table is .*/out/training_rows/"):
        flow.run(config(tmp_path / "out", "again"))


def test_ranks_may_be_those_of_another_ranking_than_the_scores(tmp_path: Path) -> None:
    """A first stage's window, with a teacher's scores."""
    table = [row | {"first": 8 - number % 8} for number, row in enumerate(rows(1))]
    table[5]["first"] = None
    flow.run(config(write(tmp_path / "in", table), rank="first", negatives={"ranks": [1, 3]}))
    assert mined(tmp_path / "out")["query 0"]["neg"] == ["passage 6 of 0", "passage 7 of 0"]
    best = {"positives": {"first": 2}, "negatives": {"ranks": [3, 4]}}
    flow.run(config(tmp_path / "in", "best", rank="first", **best))
    row = mined(tmp_path / "best")["query 0"]
    assert (row["pos"], row["neg"]) == (["passage 6 of 0", "passage 7 of 0"], ["passage 4 of 0"])


def test_shards_change_nothing(tmp_path: Path) -> None:
    source, negatives = write(tmp_path / "in", rows(20)), {"number": 3}
    flow.run(config(source, "one", negatives=negatives, shard_pairs=1000))
    flow.run(config(source, "many", negatives=negatives, shard_pairs=8))
    assert len(bytes_of(tmp_path / "many")) == 20
    assert mined(tmp_path / "many") == mined(tmp_path / "one")


def test_a_start_goes_on_where_the_last_one_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "in", rows())
    flow.run(config(source, "whole"))
    do, done = shard.do, list[str]()

    def dying(*arguments: object) -> object:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append("")
        return do(*arguments)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr("pipeline.mining.executors.here.do", dying)
    with pytest.raises(KeyboardInterrupt):
        flow.run(config(source))
    assert not (tmp_path / "out/_SUCCESS").exists()
    done[:] = [""]
    summary = flow.run(config(source))
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
    assert summary.rows == 6
    again = flow.run(config(source))
    assert again.finished_before is not None
    assert again == summary.model_copy(update={"finished_before": again.finished_before})
    (tmp_path / "out/training_rows/shard-000001.jsonl").write_bytes(b"{}")
    done[:] = [""]
    flow.run(config(source))
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def test_another_job_or_input_is_refused(tmp_path: Path) -> None:
    source, qrels = write(tmp_path / "in", rows()), tmp_path / "qrels"
    qrels.write_text("q0 0 p1 1\nq1 0 p2 0\nq2 0 p0 3\n")
    job = config(source, positives={"qrels": str(qrels)})
    summary = flow.run(job)
    assert {query: row["pos"] for query, row in mined(tmp_path / "out").items()} == {
        "query 0": ["passage 1 of 0"],
        "query 2": ["passage 0 of 2"],
    }
    assert summary.left_out == {"no_positive": 4}
    other = config(source, positives={"qrels": str(qrels)}, negatives={"seed": 1})
    with pytest.raises(OutputError, match=r"negatives.seed: was 0, is 1"):
        flow.run(other)
    qrels.write_text("q0 0 p1 1\n")
    with pytest.raises(OutputError, match=r"qrels: was .* is "):
        flow.run(job)


def test_what_is_no_number_and_no_text_is_told(tmp_path: Path) -> None:
    table = rows()
    table[0]["passage"] = None
    table = [row | {"tags": ["a"]} for row in table]
    source = write(tmp_path / "in", table)
    with pytest.raises(
        InputError, match=r"score: column 'tags' holds list<.*>; name the column of the scores, numbers"
    ):
        flow.run(config(source, score="tags"))
    told = r"no column 'bm25'; it has .*\. Name the table's own columns in score, rank or positives.label$"
    with pytest.raises(InputError, match=told):
        flow.run(config(source, rank="bm25"))
    summary = flow.run(config(source))
    assert summary.rejected == {"null_passage": 1}
    assert summary.candidates == 47


def test_scores_and_ranks_that_are_text_are_as_good(tmp_path: Path) -> None:
    """As CSV has them, and as the mix of `rerank` takes them."""
    table = [row | {"first": 8 - number % 8} for number, row in enumerate(rows())]
    options = {"rank": "first", "negatives": {"ranks": [2, 5], "absolute_margin": 0.15}}
    flow.run(config(write(tmp_path / "in", table), "numbers", **options))
    texts = [row | {"score": str(row["score"]), "first": str(row["first"])} for row in table]
    texts[0]["score"] = "none"  # a candidate without a score
    summary = flow.run(config(write(tmp_path / "csv", texts), "texts", **options))
    assert summary.rows == 6
    assert mined(tmp_path / "texts") == mined(tmp_path / "numbers")


def test_positives_without_a_score_are_told_from_none(tmp_path: Path) -> None:
    table: list[dict[str, Any]] = rows(queries=4)
    for row in table:
        if row["query_id"] == "q0" and row["label"]:
            row["score"] = None
        if row["query_id"] == "q1" and row["label"]:
            row["score"] = float("nan")
        if row["query_id"] == "q2":
            row["label"] = 0
        if row["query_id"] == "q3" and row["passage_id"] == "p5":
            row |= {"label": 1, "score": None}  # the other positive has one
    source = write(tmp_path / "in", table)
    summary = flow.run(config(source))
    assert summary.left_out == {"no_positive": 1, "no_score": 2}
    assert "  2 no_score: the query's positives have no score (q0, q1)" in [*summary.lines()]
    assert list(mined(tmp_path / "out")) == ["query 3"]
    first = flow.run(config(source, "first", positives={"first": 1}))
    assert first.left_out == {}


def test_a_run_of_rerank_is_mined_with_the_texts_that_it_kept(tmp_path: Path) -> None:
    """Once it is finished: a part of a run would pass for all of it."""
    pairs = golden_cases("tiny-bge-reranker")[0].pairs
    table = [
        {"query_id": str(n // 4), "query": query, "passage_id": f"p{n}", "passage": passage}
        for n, (query, passage) in enumerate(pairs)
    ]
    kept = {"keep_columns": {"query": "query", "passage": "passage"}}
    reranking.run(rerank(write(tmp_path / "in", table), "run", output=kept))
    job = config(tmp_path / "run/run", "../out", positives={"first": 1}, negatives={"ranks": [2, 3]})
    summary = flow.run(job)
    assert (summary.rows, summary.positives, summary.negatives) == (8, 8, 16)
    (tmp_path / "run/_SUCCESS").unlink()
    with pytest.raises(InputError, match=r"run: is not finished .* run pipeline.rerank for it to the end"):
        flow.run(job)
    (tmp_path / "r.txt").touch()  # a match that is no folder hides no other
    matched = config(tmp_path / "r*/run/*.parquet", f"{tmp_path}/out", positives={"first": 1})
    with pytest.raises(InputError, match=r"parquet: is not finished .no _SUCCESS in .*/run.; run pipeline.r"):
        flow.run(matched)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = config(write(tmp_path / "in", rows()))
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps(job.model_dump(mode="json", exclude_defaults=True)))
    assert mine.main(["--config", str(file), "--dry-run"]) == 0
    assert "shards     3, 48 candidates" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert mine.main(["--config", str(file)]) == 0
    assert "6 training rows of 6 queries" in capsys.readouterr().out
    assert mine.main(["--config", str(file), "--set", "negatives.ranks=[9, 3]"]) == 2
    assert "negatives: ranks [9, 3]: the first one comes after" in capsys.readouterr().err


def test_the_demo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it shows every field."""
    monkeypatch.chdir(ROOT)
    demo = ROOT / "configs/mine/demo.yaml"
    assert mine.main(["--config", str(demo), "--set", f"output.path={tmp_path}/out"]) == 0
    told = capsys.readouterr().out
    assert "31 training rows of 32 queries, with 89 positives and 194 negatives" in told
    assert "1 too_few_negatives: fewer negatives than negatives.at_least were found (q03)" in told
    for field in MineConfig.model_fields | NegativesConfig.model_fields:
        assert re.search(rf"\b{field}:", demo.read_text()), field


def test_a_run_that_is_made_again_with_the_same_bytes_is_the_same(tmp_path: Path) -> None:
    """Of another command the content tells, and no time stamp."""
    table = write(tmp_path / "in", rows())
    kept = {"keep_columns": {"query": "query", "passage": "passage", "label": "label"}}
    reranking.run(rerank(table, "run", output=kept))
    job = config(tmp_path / "run/run", "../out", shard_pairs=8)
    shards = flow.run(job)
    marker = sorted((tmp_path / "out" / TaskReport.FOLDER).iterdir())[1]
    (tmp_path / "out/_SUCCESS").unlink()
    (tmp_path / "out/summary.json").unlink()
    marker.unlink()  # as if it had been killed in its second shard
    parts = sorted((tmp_path / "run/run").iterdir())
    before = [part.read_bytes() for part in parts]
    for part in parts:
        part.unlink()
    reranking.run(rerank(table, "run", output=kept))
    for part, data in zip(parts, before, strict=True):
        assert part.read_bytes() == data
        os.utime(part, (part.stat().st_mtime + 60,) * 2)
    assert flow.run(job).model_copy(update={"wall_s": shards.wall_s}) == shards
    reranking.run(rerank(table, "other", output=kept | {"top_k": 3}))
    (tmp_path / "run").rename(tmp_path / "former")
    (tmp_path / "other").rename(tmp_path / "run")
    with pytest.raises(OutputError, match="holds the output of another job"):
        flow.run(job)


def test_what_is_mended_is_counted_once(tmp_path: Path) -> None:
    job = config(write(tmp_path / "in", rows()))
    flow.run(job)
    min((tmp_path / "out/training_rows").iterdir()).unlink()
    flow.run(job)
    heartbeat = last_heartbeat(Directory(str(tmp_path / "out")))
    assert heartbeat is not None
    assert heartbeat.shards_done == heartbeat.shards == 3
