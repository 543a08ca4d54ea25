"""A run as training rows, with the scorer as the teacher."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline.errors import InputError, OutputError
from pipeline.reranking import flow
from tests.conftest import MINILM
from tests.reranking.jobs import config
from tests.tables.conftest import read_all

ROWS: list[dict[str, Any]] = [
    {"query": "熊?", "pos": ["a bear"], "neg": ["a cat", "a dog"], "neg_scores": [1, 2], "prompt": "Is it?"},
    {"query": "what?", "pos": ["this", "these"], "neg": ["that"]},
    {"query": "what?", "pos": ["this"], "neg": []},
    {"query": "what?", "pos": ["this"], "neg": ["that", 7]},
]


def lines(output: Path) -> list[dict[str, Any]]:
    files = sorted(output.glob("training_rows/*"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def run_of(output: Path) -> dict[tuple[Any, str], dict[str, Any]]:
    return {(row["query_id"], row["passage_id"]): row for row in pq.read_table(output / "run").to_pylist()}


@pytest.mark.parametrize("label", [pa.array([2**53 + 1, 0]), pa.array([2**64 - 1, 0], pa.uint64())])
def test_labels_that_no_float_holds_are_above_0(tmp_path: Path, label: pa.Array) -> None:
    columns = {"query_id": ["q"] * 2, "query": ["bear"] * 2, "passage_id": ["a", "b"], "passage": ["a", "b"]}
    pq.write_table(pa.table({**columns, "count": label}), tmp_path / "in.parquet")
    output = {"keep_columns": {"count": "count"}, "training_rows": {"label": "count"}}
    flow.run(config(tmp_path / "in.parquet", output=output))
    assert [(row["pos"], row["neg"]) for row in lines(tmp_path / "out")] == [(["a"], ["b"])]


@pytest.mark.parametrize("name", ["prompt", "query_prompt", "passage_prompt", "type"])
@pytest.mark.parametrize("values", [[b"x"], [date(2026, 1, 1)], [float("nan")], [["a"]]])
def test_what_a_trainer_takes_from_a_kept_column_is_text(tmp_path: Path, name: str, values: Any) -> None:
    columns = {"query_id": ["q"], "query": ["bear"], "passage_id": ["a"], "passage": ["a"], "l": [1]}
    pq.write_table(pa.table({**columns, "c": values}), tmp_path / "in.parquet")
    output = {"keep_columns": {"l": "l", name: "c"}, "training_rows": {"label": "l"}}
    with pytest.raises(
        InputError, match=f"output.keep_columns: '{name}' holds .* keep it under another name"
    ):
        flow.run(config(tmp_path / "in.parquet", output=output))
    flow.run(config(tmp_path / "in.parquet", output={"keep_columns": {"l": "l", name: "c"}}))  # no rows asked


def test_training_rows_come_back_with_the_scores_of_the_run(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    kept = {"label": "label", "prompt": "prompt"}
    output = {"keep_columns": kept, "training_rows": {"label": "label"}}
    table = {"path": str(source), "format": "flag_embedding"}
    summary = flow.run(config(source, input=table, shard_pairs=3, output=output))
    assert (summary.pairs, summary.rejected) == (6, {"invalid_text": 1, "no_negatives": 1})
    assert (summary.training_rows, summary.no_training_row) == (2, 0)
    assert "2 training rows in" in summary.as_text()

    out, run = tmp_path / "out", run_of(tmp_path / "out")
    made = lines(out)
    for row, number in zip(made, (1, 2), strict=True):
        before = ROWS[number - 1]
        assert row["query"] == before["query"]
        assert row.get("prompt") == before.get("prompt")
        for side in ("pos", "neg"):
            texts = before[side]
            assert sorted(row[side]) == sorted(texts)
            for text, score in zip(row[side], row[f"{side}_scores"], strict=True):
                place = texts.index(text) + 1
                told = run[f"rows.jsonl:{number}", f"{side}:{place}"]
                assert score == pytest.approx(told["score"], rel=1e-8)
            assert row[f"{side}_scores"] == sorted(row[f"{side}_scores"], reverse=True)
    good, bad = read_all(out / "training_rows", "flag_embedding", kept={"given": "score"})
    assert (len(good), bad) == (6, [])
    assert None not in [row["kept"]["given"] for row in good]


def test_judged_positives_are_taken_wherever_they_rank(table: Path, tmp_path: Path) -> None:
    """And negatives from what stays in the run; a query without either has no row."""
    flow.run(config(table, "all"))
    ranks = {key: row["rank"] for key, row in run_of(tmp_path / "all").items()}
    last = {query: passage for (query, passage), rank in ranks.items() if rank == 4}
    best = {query: passage for (query, passage), rank in ranks.items() if rank == 1}
    judged = [f"0 0 {last[0]} 2", f"1 0 {best[1]} 1", f"2 0 {best[2]} 0", "3 0 elsewhere 1"]
    qrels = tmp_path / "qrels"
    qrels.write_text("\n".join(judged) + "\n")
    job = config(table, output={"top_k": 1, "training_rows": {"qrels": str(qrels)}})
    summary = flow.run(job)
    passages = {row["passage_id"]: row["passage"] for row in pq.read_table(table).to_pylist()}
    (row,) = lines(tmp_path / "out")
    assert (row["pos"], row["neg"]) == ([passages[last[0]]], [passages[best[0]]])
    assert (summary.training_rows, summary.no_training_row) == (1, 7)

    qrels.write_text("\n".join(judged[1:]) + "\n")
    with pytest.raises(OutputError, match=r"qrels: was .* is "):
        flow.run(job)


def test_where_nobody_judged_the_first_are_the_positives(table: Path, tmp_path: Path) -> None:
    """By raw scores, which a sigmoid would flatten."""
    flow.run(config(table, scorer={"normalize": True}, output={"training_rows": {"first": 2}}))
    run = pq.read_table(tmp_path / "out/run").to_pylist()
    made = lines(tmp_path / "out")
    assert len(made) == 8
    scores = [score for row in made for score in row["pos_scores"] + row["neg_scores"]]
    assert scores == pytest.approx([row["raw_score"] for row in run], rel=1e-8)
    assert {(len(row["pos"]), len(row["neg"])) for row in made} == {(2, 2)}


def test_a_cascade_teaches_what_its_last_level_scored(table: Path, tmp_path: Path) -> None:
    levels = [
        {"scorer": {"model": MINILM, "device": "cpu"}, "keep": 3},
        {"scorer": {"model": config(table).cascade[0].scorer.model, "device": "cpu"}},
    ]
    flow.run(config(table, levels=levels, output={"training_rows": {"first": 1}}))
    run = pq.read_table(tmp_path / "out/run").to_pylist()
    wanted = [row["level_1_score"] for row in run if row["level_1_score"] is not None]
    made = [score for row in lines(tmp_path / "out") for score in row["pos_scores"] + row["neg_scores"]]
    assert len(wanted) == 24
    assert made == pytest.approx(wanted, rel=1e-8)


def test_a_cascade_that_fuses_teaches_the_fused_score(table: Path, tmp_path: Path) -> None:
    levels = [
        {"scorer": {"model": MINILM, "device": "cpu"}, "keep": 3},
        {
            "scorer": {"model": config(table).cascade[0].scorer.model, "device": "cpu"},
            "fuse": {"method": "weighted"},
        },
    ]
    flow.run(config(table, levels=levels, output={"training_rows": {"first": 1}}))
    run = pq.read_table(tmp_path / "out/run").to_pylist()
    wanted = [row["level_1_fused"] for row in run if row["level_1_fused"] is not None]
    made = [score for row in lines(tmp_path / "out") for score in row["pos_scores"] + row["neg_scores"]]
    assert len(wanted) == 24
    assert made == pytest.approx(wanted, rel=1e-8)
    assert {row["pos_scores"][0] - max(row["neg_scores"]) >= 0 for row in lines(tmp_path / "out")} == {True}


def test_damaged_training_rows_are_made_again(table: Path, tmp_path: Path) -> None:
    job = config(table, output={"training_rows": {"first": 1}})
    flow.run(job)
    file = tmp_path / "out/training_rows/shard-000001.jsonl"
    right = file.read_bytes()
    file.unlink()
    assert flow.run(job).shards_done_before == 3
    file.write_bytes(right.replace(b"query", b"Query", 1))
    flow.run(job, check_bytes=True)
    assert file.read_bytes() == right
    (file.parent / "more.jsonl").write_text("{}\n")
    with pytest.raises(OutputError, match=r"training_rows/more.jsonl: is no file of this output"):
        flow.run(job)


def test_labels_that_can_tell_nothing_are_refused(table: Path) -> None:
    with pytest.raises(ValidationError, match=r"training_rows.label n: is none of keep_columns"):
        config(table, output={"training_rows": {"label": "n"}})
    with pytest.raises(ValidationError, match="one of label, qrels and first"):
        config(table, output={"training_rows": {"first": 1, "qrels": "q"}})
    kept = {"keep_columns": {"text": "passage"}, "training_rows": {"label": "text"}}
    with pytest.raises(InputError, match=r"training_rows.label: column 'text' holds string; a label is a"):
        flow.run(config(table, output=kept))


def test_other_jobs_say_nothing_of_training_rows(table: Path, tmp_path: Path) -> None:
    summary = flow.run(config(table))
    assert not (tmp_path / "out/training_rows").exists()
    assert "training" not in (tmp_path / "out/summary.json").read_text() + summary.as_text()
    assert "training" not in (tmp_path / "out/_manifest/plan.json").read_text()
