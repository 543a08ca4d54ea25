"""A job that names judgments tells how good its run is, and never scores again for them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest

from pipeline import output
from pipeline.errors import InputError
from pipeline.evaluation.comparison import evaluate
from pipeline.evaluation.judge import read_judge
from pipeline.evaluation.measures import DEFAULT_MEASURES
from pipeline.reporting.summary import Summary
from pipeline.reranking import dry_run, flow
from pipeline.reranking.config import RerankConfig
from pipeline.reranking.executors import here
from pipeline.tables.output.directory import Directory
from tests.reranking.jobs import config, data_of

QRELS = "".join(f"{query} 0 p{4 * query + query % 4:02} 1\n" for query in range(6)) + "nobody 0 p00 1\n"
"""Of six of the table's eight queries, each with one relevant passage of its four; and of one it lacks."""


def judged_config(table: Path, qrels: str = QRELS, **sections: Any) -> RerankConfig:
    file = table.parent / "qrels.txt"
    if not file.exists() or file.read_text() != qrels:  # its time of change is a part of what it is
        file.write_text(qrels)
    return config(table, qrels=str(file), **sections)


def job(settings: RerankConfig) -> Summary:
    return flow.run(settings, read_judge=read_judge)


def never(*_: object) -> Iterator[None]:
    raise AssertionError("a shard was scored again")


@pytest.mark.parametrize("top_k", [None, 2])
def test_the_measures_are_those_of_evaluate_with_the_input_as_its_baseline(
    table: Path, top_k: int | None
) -> None:
    rows = pq.read_table(table).to_pylist()
    first_stage = table.parent / "input.trec"
    first_stage.write_text(
        "".join(f"{row['query_id']} Q0 {row['passage_id']} 1 {-row['n']} x\n" for row in rows)
    )
    summary = job(judged_config(table, output={"top_k": top_k}))
    run, qrels = str(table.parent / "out"), str(table.parent / "qrels.txt")
    expected = evaluate([run], qrels, str(first_stage), DEFAULT_MEASURES, common_queries=True)
    assert summary.judged is not None
    assert summary.judged.measures == {row.measure: row.told for row in expected.comparisons}
    told = summary.judged
    assert (told.queries, told.measured_queries, told.lost_queries) == (7, 6, 0)
    before = summary.judged.measures["RR@10"].before
    best = [1 / (query % 4 + 1) for query in range(6) if top_k is None or query % 4 < top_k]
    assert before == pytest.approx(sum(best) / 6)
    written = json.loads((table.parent / "out/summary.json").read_text())
    assert written["judged"]["measures"]["RR@10"]["before"] == before
    assert f"6 of the 7 queries that {qrels} judges are in the run" in summary.as_text()
    assert "1 are not in the input" in summary.as_text()
    report = (table.parent / "out/report.html").read_text()
    assert "How good it is" in report
    assert f"{before:.4f}" in report


def test_rejected_candidates_and_queries_are_on_neither_side(tmp_path: Path) -> None:
    """Of a TREC run whose order can't change: one candidate a query."""
    for name, texts in (
        ("queries", {"q1": "why?", "q2": "how?"}),
        ("corpus", {"p1": "because", "p2": "so", "p3": "thus"}),
    ):
        rows = (json.dumps({"_id": key, "text": text}) for key, text in texts.items())
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    lines = ["q1 Q0 gone 1 3 x", "q1 Q0 p1 2 2 x", "q2 Q0 p2 1 3 x", "q2 Q0 p3 2 2 x", "q3 Q0 p3 1 3 x"]
    (tmp_path / "run.trec").write_text("\n".join(lines) + "\n")
    (tmp_path / "qrels.txt").write_text("q1 0 p1 1\nq2 0 p2 1\nq3 0 p3 1\n")
    texts = {"queries": f"{tmp_path}/queries.jsonl", "passages": f"{tmp_path}/corpus.jsonl"}
    source = {"path": str(tmp_path / "run.trec"), "format": "trec", "top_k": 1, **texts}
    summary = job(config(tmp_path / "run.trec", input=source, qrels=str(tmp_path / "qrels.txt")))
    assert summary.rejected == {"no_passage_text": 1, "no_query_text": 1}
    assert summary.judged is not None
    assert (summary.judged.measured_queries, summary.judged.lost_queries) == (2, 1)
    for measure in summary.judged.measures.values():
        assert (measure.before, measure.after, measure.change.same) == (1, 1, 2)


def test_a_finished_job_is_judged_without_scoring(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unjudged = flow.run(config(table))
    data = data_of(table.parent / "out")
    monkeypatch.setattr(here, "work", never)
    judged = job(judged_config(table))
    assert judged.judged is not None
    assert unjudged.model_dump() == judged.model_copy(update={"judged": None}).model_dump()
    assert "nothing was scored now" in judged.as_text()
    directory = Directory(str(table.parent / "out"))
    assert output.is_complete(directory)
    assert output.is_intact(directory, check_bytes=True)
    assert data_of(table.parent / "out") == data
    # By the same judgments, or without any, it is not touched.
    files = {path: path.stat().st_mtime_ns for path in (table.parent / "out").rglob("*")}
    assert job(judged_config(table)).judged is not None
    assert flow.run(config(table)).judged == judged.judged
    assert {path: path.stat().st_mtime_ns for path in (table.parent / "out").rglob("*")} == files
    other = job(judged_config(table, "0 0 p03 1\n"))
    assert other.judged is not None
    assert (other.judged.queries, other.judged.measures["RR@10"].before) == (1, 1 / 4)


def test_a_job_that_was_left_unfinished_is_judged_as_a_whole(table: Path) -> None:
    whole = job(judged_config(table))
    (table.parent / "out/_SUCCESS").unlink()
    (table.parent / "out/_manifest/done/shard-000002.json").unlink()
    assert job(judged_config(table)).judged == whole.judged


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ("", "qrels.txt: no judgments in it"),
        ("0 p03 1\n", "qrels.txt line 1: not `query iteration passage relevance`"),
        ("q0 0 p03 1\n", r"qrels .*qrels.txt: judges none of the queries of .*/in. It judges 'q0', say"),
    ],
)
def test_judgments_that_say_nothing_are_refused_before_the_work(
    table: Path, monkeypatch: pytest.MonkeyPatch, qrels: str, message: str
) -> None:
    monkeypatch.setattr(here, "work", never)
    for refused in (job, lambda settings: dry_run.describe(settings, read_judge=read_judge)):
        with pytest.raises(InputError, match=message):
            refused(judged_config(table, qrels))
    assert not (table.parent / "out").exists()


def test_judgments_that_are_not_there_are_refused(table: Path) -> None:
    with pytest.raises(InputError, match="nowhere/qrels.txt: no such file"):
        job(config(table, qrels="nowhere/qrels.txt"))


def test_judgments_may_lie_in_a_store(table: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/qrels.tsv", b"query-id\tcorpus-id\tscore\n0\tp03\t1\n")
    settings = config(table, qrels="memory://bucket/qrels.tsv")
    assert "1 of the 1 queries that memory://bucket/qrels.tsv judges" in dry_run.describe(
        settings, read_judge=read_judge
    )
    judged = job(settings).judged
    assert judged is not None
    assert judged.measures["R@10"].before == 1


def test_judgments_are_no_part_of_the_job(table: Path) -> None:
    assert judged_config(table).fingerprint == config(table).fingerprint
    dated = config(table, qrels="s3://b/{run_date}.qrels", run_date="2026-11-20")
    assert dated.qrels == "s3://b/2026-11-20.qrels"


def test_a_table_that_was_replaced_after_the_last_shard_loses_no_scores(
    table: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    really = flow._finish

    def finish(*arguments: Any) -> Summary:
        for file in table.iterdir():
            pq.write_table(pq.read_table(file), file)
        return really(*arguments)

    monkeypatch.setattr(flow, "_finish", finish)
    summary = job(judged_config(table))
    assert (summary.pairs, summary.judged) == (32, None)
    assert output.is_complete(Directory(str(table.parent / "out")))
    run, qrels = table.parent / "out", table.parent / "qrels.txt"
    told = f"the run is not measured because='{table}/"
    assert told in caplog.text
    assert f"instead='pipeline.evaluate --run {run} --qrels {qrels}'" in caplog.text
    assert "the report lacks texts of queries that moved because=" in caplog.text
