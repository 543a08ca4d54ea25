"""The first stage's scores in the mix that ranks: from a table to a run, in this process."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.evaluation.judge import read_judge
from pipeline.evaluation.runs import read_whole_run
from pipeline.fusion import FloatArray
from pipeline.reranking import dry_run, flow, shard, worker
from tests.reranking.jobs import config, data_of
from tests.reranking.test_levels import FIRST, SECOND, run_of

BEST_LAST = [1.0, 2.0, 4.0, 3.0]
"""The first stage's scores of a query's four candidates."""


def with_scores(table: Path, scores: list[Any], name: str = "first_stage_score") -> Path:
    """The table with a column more; scores: over and over."""
    taken = 0
    for file in sorted(table.glob("*.parquet")):
        rows = pq.read_table(file)
        column = pa.array([scores[(taken + row) % len(scores)] for row in range(len(rows))])
        taken += len(rows)
        names = [each for each in rows.column_names if each != name]
        pq.write_table(rows.select(names).append_column(name, column), file)
    return table


@pytest.fixture
def scored(table: Path) -> Path:
    return with_scores(table, BEST_LAST)


def spread(scores: list[float]) -> FloatArray:
    values: FloatArray = np.array(scores, np.float64)
    values -= values.min()
    values /= values.max()
    return values


def places(scores: list[float]) -> npt.NDArray[np.int64]:
    return np.argsort(np.argsort(-np.array(scores))) + 1


def queries(run: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [run[start : start + 4] for start in range(0, 32, 4)]


def test_weighted_scores_of_one_scorer_and_the_first_stage(scored: Path) -> None:
    fuse = {"method": "weighted", "first_stage": 0.3, "weights": [0.7]}
    summary = flow.run(config(scored, fuse=fuse, output={"trec_run": True}))
    run = run_of(scored.parent / "out")
    for rows in queries(run):
        given, own = ([row[name] for row in rows] for name in ("first_stage_score", "scorer_score"))
        assert sorted(given) == sorted(BEST_LAST)
        np.testing.assert_allclose(
            [row["score"] for row in rows], 0.3 * spread(given) + 0.7 * spread(own), 1e-6
        )
        assert [row["rank"] for row in rows] == [1, 2, 3, 4]
        assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert "scorer: ranks by 0.3 * first stage + 0.7 * scorer (scores, each from 0 to 1)" in summary.as_text()
    # Tools that order by score read the same ranks.
    parquet, _ = read_whole_run(str(scored.parent / "out"))
    trec, _ = read_whole_run(str(scored.parent / "out/run.trec"))
    assert [row[:2] for row in parquet] == [row[:2] for row in trec]


def test_reciprocal_ranks_of_one_scorer_and_the_first_stage(scored: Path) -> None:
    scorer = {"normalize": True}  # the sigmoid is shown, and never ranks
    summary = flow.run(config(scored, scorer=scorer, fuse={"first_stage": 2, "k": 10}))
    for rows in queries(run_of(scored.parent / "out")):
        given, raw = ([row[name] for row in rows] for name in ("first_stage_score", "scorer_raw_score"))
        shown = [row["scorer_score"] for row in rows]
        np.testing.assert_allclose(shown, 1 / (1 + np.exp(-np.array(raw))), 1e-5)
        np.testing.assert_allclose(
            [row["score"] for row in rows], 2 / (10 + places(given)) + 1 / (10 + places(raw)), 1e-6
        )
    assert "ranks by 2 * first stage + 1 * scorer (reciprocal ranks, k 10)" in summary.as_text()


def test_a_level_mixes_it_among_the_candidates_that_it_saw(scored: Path) -> None:
    fuse = {"method": "weighted", "first_stage": 1, "weights": [0, 0]}
    summary = flow.run(config(scored, levels=[FIRST, SECOND | {"fuse": fuse}]))
    for rows in queries(run_of(scored.parent / "out")):
        saw = [row for row in rows if row["level_1_rank"] is not None]
        assert len(saw) == 3
        fused = [row["level_1_fused"] for row in saw]
        np.testing.assert_allclose(fused, spread([row["first_stage_score"] for row in saw]), 1e-6)
        assert [row["level_1_rank"] for row in saw] == [1, 2, 3]
    told = "levels.1: ranks by 1 * first stage + 0 * levels.0 + 0 * levels.1 (scores, each from 0 to 1)"
    assert told in summary.as_text()
    assert list(json.loads((scored.parent / "out/summary.json").read_text())["fused"]) == ["levels.1"]


def test_the_first_level_may_mix_it_to_choose_what_goes_on(scored: Path) -> None:
    fuse = {"method": "weighted", "first_stage": 1, "weights": [0]}
    flow.run(config(scored, levels=[FIRST | {"fuse": fuse}, SECOND]))
    for rows in queries(run_of(scored.parent / "out")):
        assert [row["first_stage_score"] for row in rows if row["level_1_score"] is None] == [1.0]


def test_scores_are_reused_and_the_mix_is_of_todays_first_stage(scored: Path) -> None:
    fuse = {"fuse": {"method": "weighted", "first_stage": 1}}
    flow.run(config(scored, "yesterday", **fuse))
    with_scores(scored, [2.5, 0.5, -1.0, 7.0])
    today = flow.run(config(scored, "today", **fuse, reuse=str(scored.parent / "yesterday")))
    assert today.reused == today.pairs == 32
    flow.run(config(scored, "fresh", **fuse))
    fresh = data_of(scored.parent / "fresh")
    assert data_of(scored.parent / "today") == fresh
    assert fresh != data_of(scored.parent / "yesterday")
    # A run without a mix has the same scores, and takes them too.
    plain = flow.run(config(scored, "plain", reuse=str(scored.parent / "today")))
    assert plain.reused == 32
    assert "first_stage_score" not in run_of(scored.parent / "plain")[0]


def test_a_start_after_a_break_writes_the_same(scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, calls = shard.score, []

    def breaking(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return work(*arguments)

    fuse = {"fuse": {"first_stage": 1}, "output": {"trec_run": True}}
    flow.run(config(scored, "whole", **fuse))
    with monkeypatch.context() as patch:
        patch.setattr(worker, "score", breaking)
        with pytest.raises(KeyboardInterrupt):
            flow.run(config(scored, "broken", **fuse))
    assert flow.run(config(scored, "broken", **fuse)).shards_done_before == 2
    assert data_of(scored.parent / "broken") == data_of(scored.parent / "whole")
    with pytest.raises(Exception, match=r"fuse.first_stage: was 1.0, is 2.0"):
        flow.run(config(scored, "whole", fuse={"first_stage": 2}, output={"trec_run": True}))


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), 1e300])
def test_a_row_without_a_finite_score_is_rejected(table: Path, bad: float | None) -> None:
    with_scores(table, [1.0, bad, 3.0, 4.0])
    qrels = table.parent / "qrels.txt"
    qrels.write_text("0 0 p00 1\n1 0 p07 1\n")
    summary = flow.run(config(table, fuse={"first_stage": 1}, qrels=str(qrels)), read_judge=read_judge)
    assert summary.rejected == {"no_first_stage_score": 8}
    assert (summary.pairs, summary.kept) == (24, 24)
    rejects = pq.read_table(table.parent / "out/rejects").to_pylist()
    assert [(row["row"], row["passage_id"]) for row in rejects[:2]] == [(2, "p01"), (6, "p05")]
    assert summary.judged is not None
    # Without the mix nobody asks for it.
    assert flow.run(config(table, "plain")).rejected == {}


def test_numbers_may_be_text_as_csv_has_them(table: Path) -> None:
    rows = [row for file in sorted(table.glob("*")) for row in pq.read_table(file).to_pylist()]
    lines = [
        f"{row['query_id']},query,{row['passage_id']},passage {row['n']},{score}"
        for row, score in zip(rows, ["1.5", "", "high", "1_0", "-2e1", "3", "nan", " 4"] * 4, strict=True)
    ]
    path = table.parent / "in.csv"
    path.write_text("\n".join(["query_id,query,passage_id,passage,bm25", *lines]) + "\n")
    given = {"path": str(path), "format": "csv"}
    keep = {"keep_columns": {"first_stage_score": "bm25"}}
    summary = flow.run(config(table, input=given, fuse={"method": "weighted", "first_stage": 1}, output=keep))
    assert summary.rejected == {"no_first_stage_score": 16}
    assert {row["first_stage_score"] for row in run_of(table.parent / "out")} == {"1.5", "-2e1", "3", " 4"}


@pytest.mark.parametrize("levels", [False, True])
@pytest.mark.parametrize(
    ("scores", "told"),
    [
        (
            None,
            r"part-0\.parquet: no column 'first_stage_score'; it has .*\. Name the table's own columns in",
        ),
        (
            [True, False],
            r"in: column 'first_stage_score' holds bool, which is no number; .*\. Name the table's",
        ),
        ([None], r"in: column 'first_stage_score' holds no value in any row; .*\. Name the table's"),
    ],
)
def test_a_table_without_scores_is_refused(
    table: Path, scores: list[Any] | None, told: str, levels: bool
) -> None:
    if scores is not None:
        with_scores(table, scores)
    fuse: dict[str, Any] = {"fuse": {"first_stage": 1}}
    where = r"levels\.1\.fuse" if levels else "fuse"
    job = config(table, levels=[FIRST, SECOND | fuse]) if levels else config(table, **fuse)
    way_out = r".*output\.keep_columns: \{first_stage_score: NAME\}$"
    with pytest.raises(InputError, match=rf"^{where}\.first_stage: .*{told}{way_out}"):
        flow.run(job)


def test_a_trec_run_has_them_in_its_own_column(table: Path) -> None:
    (table.parent / "run.trec").write_text("q Q0 a 1 9.5 x\nq Q0 b 2 7.5 x\nq Q0 c 3 7.25 x\n")
    (table.parent / "queries.tsv").write_text("q\tpanda\n")
    (table.parent / "passages.tsv").write_text("a\tone\nb\ttwo\nc\tthree\n")
    given = {"path": str(table.parent / "run.trec"), "format": "trec"}
    given |= {name: str(table.parent / f"{name}.tsv") for name in ("queries", "passages")}
    fuse = {"method": "weighted", "first_stage": 1, "weights": [0]}
    job = config(table, input=given, fuse=fuse)
    assert "3 pairs" in dry_run.describe(job).replace(" candidates", " pairs")
    flow.run(job)
    run = run_of(table.parent / "out")
    assert [(row["passage_id"], row["first_stage_score"]) for row in run] == [
        ("a", 9.5),
        ("b", 7.5),
        ("c", 7.25),
    ]


def test_a_nested_table_has_a_score_with_each_candidate(table: Path) -> None:
    rows = [
        {"query_id": "a", "query": "panda?", "candidates": [
            {"passage_id": "p", "passage": "a bear", "first_stage_score": 2},
            {"passage_id": "q", "passage": "a cat"},
            {"passage_id": "r", "passage": "\ud800", "first_stage_score": 1},
        ]},
        {"query_id": "b", "query": "bear?", "candidates": None},
        {"query_id": "c", "query": "cat?", "candidates": [{"passage_id": "p", "passage": "a bear"}]},
    ]  # fmt: skip
    path = table.parent / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"path": str(path), "format": "jsonl"}
    summary = flow.run(config(table, input=given, fuse={"first_stage": 1}, shard_pairs=1))
    assert (summary.pairs, summary.rejected) == (
        1, {"no_first_stage_score": 2, "invalid_text": 1, "null_candidates": 1}
    )  # fmt: skip
    rejects = pq.read_table(table.parent / "out/rejects").to_pylist()
    assert ("c", "p", 1, "no_first_stage_score") in [
        (row["query_id"], row["passage_id"], row["item"], row["reason"]) for row in rejects
    ]


def test_a_teachers_rows_have_the_mixed_score(scored: Path) -> None:
    teach = {"training_rows": {"first": 1}}
    flow.run(config(scored, fuse={"method": "weighted", "first_stage": 1}, output=teach))
    taught = [
        json.loads(line)
        for file in sorted((scored.parent / "out/training_rows").glob("*"))
        for line in file.read_text().splitlines()
    ]
    for rows, row in zip(queries(run_of(scored.parent / "out")), taught, strict=True):
        told = [*row["pos_scores"], *row["neg_scores"]]
        assert told == pytest.approx([each["score"] for each in rows])
