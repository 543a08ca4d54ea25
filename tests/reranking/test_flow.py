"""The job, from a table to a run, in this process; executors/test_ray_data.py has it on Ray."""

import html
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError, ModelError, OutputError
from pipeline.evaluation.judge import read_judge
from pipeline.evaluation.runs import read_whole_run
from pipeline.reranking import flow
from pipeline.reranking.config import load_config
from pipeline.reranking.executors import here
from tests.conftest import MINILM, ROOT, TINY, golden_cases
from tests.reranking.jobs import config, data_of
from tests.scoring.checkpoints import make_saturated

MINICPM = "tiny-bge-reranker-v2-minicpm-layerwise"


def test_scores_are_the_published_ones_and_ranks_follow(table: Path) -> None:
    summary = flow.run(config(table, output={"keep_columns": {"number": "n"}, "trec_run": True}))
    run = pq.read_table(table.parent / "out/run").to_pylist()
    expected = golden_cases("tiny-bge-reranker")[0].scores
    np.testing.assert_allclose(
        [row["score"] for row in run], [expected[row["number"]] for row in run], atol=1e-4
    )
    assert [row["number"] // 4 for row in run] == [number // 4 for number in range(32)]
    for first in range(0, 32, 4):
        scores = [row["score"] for row in run[first : first + 4]]
        assert scores == sorted(scores, reverse=True)
        assert [row["rank"] for row in run[first : first + 4]] == [1, 2, 3, 4]
    assert pq.read_schema(table.parent / "out/run/shard-000000.parquet").field("query_id").type == pa.int64()
    assert (summary.pairs, summary.queries, summary.shards, summary.rejected) == (32, 8, 4, {})
    assert summary.truncated == sum(row["query_cut"] + row["passage_cut"] > 0 for row in run) == 3
    assert {row["window"] for row in run} == {0}
    assert len((table.parent / "out/run.trec").read_text().splitlines()) == 32


def test_the_summary_tells_scores_and_movement_of_all_candidates(table: Path) -> None:
    flow.run(config(table, "all", output={"keep_columns": {"number": "n"}}))
    run = pq.read_table(table.parent / "all/run").to_pylist()
    summary = flow.run(config(table, output={"top_k": 1}))
    moved = [row["number"] % 4 + 1 - row["rank"] for row in run]
    assert summary.rank_changes["up"] == sum(places > 0 for places in moved) / 32
    assert summary.rank_changes["places"] == round(sum(map(abs, moved)) / 32, 4)
    stayed = sum(row["rank"] == 1 and row["number"] % 4 == 0 for row in run) / 8
    assert summary.rank_changes["stayed_in_top_1"] == stayed
    scores = sorted(row["score"] for row in run)
    assert (summary.scores["least"], summary.scores["largest"]) == pytest.approx(
        (scores[0], scores[-1]), 1e-5
    )
    best = [row["score"] for row in run if row["rank"] == 1]
    assert summary.best_scores["least"] == pytest.approx(min(best), 1e-5)
    report = (table.parent / "out/report.html").read_text()
    jumped = max((row for row in run if row["rank"] == 1), key=lambda row: row["number"] % 4)
    query, passage = golden_cases("tiny-bge-reranker")[0].pairs[jumped["number"]]
    assert f"{jumped['passage_id']}, from place {jumped['number'] % 4 + 1}" in report
    assert html.escape(passage[:50]) in report
    assert html.escape(query[:50]) in report
    assert "32 of 8 queries" in report
    assert "finished, every row scored" in report


def test_candidates_beyond_the_inputs_top_k_are_left_out_and_counted(table: Path) -> None:
    summary = flow.run(config(table, input={"path": str(table), "top_k": 3}))
    assert (summary.pairs, summary.beyond_top_k, summary.queries) == (24, 8, 8)
    assert "8 candidates beyond input.top_k were left out of the run" in summary.as_text()
    run = pq.read_table(table.parent / "out/run")
    assert sorted(run["passage_id"].to_pylist()) == [
        f"p{number:02}" for number in range(32) if number % 4 < 3
    ]
    assert read_whole_run(str(table.parent / "out"))[1] == 3
    with pytest.raises(OutputError, match="input.top_k: was 3, is not given"):
        flow.run(config(table))


def test_a_beir_folder_and_a_run_are_all_that_a_job_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    settings = ["input.top_k=2", f"output.path={tmp_path}/out", f"scorer.model={TINY}", "executor=here"]
    beir = load_config(ROOT / "configs/rerank/beir.yaml", settings)
    summary = flow.run(beir, read_judge=read_judge)
    assert (summary.queries, summary.pairs, summary.beyond_top_k, summary.rejected) == (32, 64, 576, {})
    run = pq.read_table(tmp_path / "out/run")
    assert set(run["first_stage_rank"].to_pylist()) == {1, 2}
    assert len((tmp_path / "out/run.trec").read_text().splitlines()) == 64
    assert summary.judged is not None
    assert (summary.judged.queries, summary.judged.measured_queries) == (32, 32)


def test_several_cutoff_layers_are_columns(table: Path) -> None:
    case = next(case for case in golden_cases(MINICPM) if case.options.get("cutoff_layers") == (2, 4, 6))
    layers = {"model": case.checkpoint, "cutoff_layers": [2, 6, 4]}
    flow.run(config(table, scorer=layers, output={"keep_columns": {"number": "n"}}))
    run = pq.read_table(table.parent / "out/run").to_pylist()
    for name, column in (("score_2", 0), ("score_6", 2), ("score_4", 1), ("score", 1)):
        expected = case.scores[[row["number"] for row in run], column]
        np.testing.assert_allclose([row[name] for row in run], expected, atol=1e-4)
    assert [*run[0]][-4:] == ["score_2", "score_6", "score_4", "number"]


def test_columns_of_any_name_are_kept(table: Path) -> None:
    names = {
        "名": "列.x",
        "a.b": "c d",
        "": "e",
        "query": "",
        "kept": "kept",
        "file": 'q"\n',
        "Score": "rank",
    }
    for part in (0, 16):
        file = table / f"part-{part // 16}.parquet"
        rows = pq.read_table(file).to_pylist()
        values = [{column: f"{column} {row['n']}" for column in names.values()} for row in rows]
        renamed = [
            {"查询": row.pop("query"), **row, **value} for row, value in zip(rows, values, strict=True)
        ]
        pq.write_table(pa.Table.from_pylist(renamed), file)
    source = {"path": str(table), "columns": {"query": "查询"}}
    flow.run(config(table, input=source, output={"keep_columns": names | {"number": "n"}}))
    for row in pq.read_table(table.parent / "out/run").to_pylist():
        assert {name: row[name] for name in names} == {
            name: f"{column} {row['number']}" for name, column in names.items()
        }


def test_long_passages_tell_which_window_won(table: Path) -> None:
    windows = {"strategy": "max", "window": 64, "stride": 32}
    flow.run(config(table, scorer={"long_passages": windows}))
    run = pq.read_table(table.parent / "out/run").to_pylist()
    assert {row["passage_cut"] for row in run} == {0}
    assert max(row["window"] for row in run) > 0
    plain = [row["window"] for row in run if row["window"] == 0]
    assert len(plain) > len(run) / 2


def test_a_start_after_a_break_redoes_only_what_was_not_done(table: Path) -> None:
    flow.run(config(table, "undisturbed", output={"trec_run": True}))
    flow.run(config(table, output={"trec_run": True}))
    out = table.parent / "out"
    markers = [f"_manifest/done/shard-{number:06}.json" for number in (1, 2)]
    for lost in ("_SUCCESS", "summary.json", *markers):
        (out / lost).unlink()
    (out / "run/shard-000001.parquet").unlink()  # shard 2: data written, marker not
    untouched = (out / "run/shard-000000.parquet").stat().st_mtime_ns
    summary = flow.run(config(table, output={"trec_run": True}))
    assert (summary.shards_done_before, summary.pairs_done_before, summary.pairs) == (2, 16, 32)
    first, second, *_ = summary.as_text().splitlines()
    assert first.startswith(f"32 pairs of 8 queries scored by {TINY} in float32, ")
    assert second.startswith(f"The last start did 16 of these pairs in {summary.wall_s:.1f} s (")
    assert second.endswith(" pairs/s with start-up); 2 of 4 shards were done before")
    assert summary.pairs_per_s == pytest.approx(16 / summary.wall_s, rel=0.1)
    assert (out / "run/shard-000000.parquet").stat().st_mtime_ns == untouched
    assert data_of(out) == data_of(table.parent / "undisturbed")


def test_a_finished_job_is_not_touched(table: Path) -> None:
    first = flow.run(config(table))
    before = {path: path.stat().st_mtime_ns for path in (table.parent / "out").rglob("*")}
    again = flow.run(config(table, actors={"min": 1, "max": 2}))
    assert again.model_dump() == first.model_dump()
    assert re.match(
        r"Finished before, at 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC; nothing was scored now.\n32 pairs",
        again.as_text(),
    )
    assert first.as_text().startswith("32 pairs")
    assert {path: path.stat().st_mtime_ns for path in (table.parent / "out").rglob("*")} == before


def test_another_job_is_refused(table: Path) -> None:
    flow.run(config(table))
    with pytest.raises(OutputError, match=r"scorer.max_length: was not given, is 64"):
        flow.run(config(table, scorer={"max_length": 64}))
    os.utime(table / "part-1.parquet", (1, 1))
    with pytest.raises(
        OutputError, match=r"part-1.parquet: was \d+ bytes, .* is \d+ bytes, 1970-01-01T00:00:01"
    ):
        flow.run(config(table))


def test_a_model_that_changed_under_its_name_is_refused(table: Path) -> None:
    model = table.parent / "model"
    shutil.copytree(TINY, model)
    flow.run(config(table, scorer={"model": str(model)}))
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    with pytest.raises(OutputError, match="the model's weights or files: were sha256:"):
        flow.run(config(table, scorer={"model": str(model)}))


def test_rows_that_cant_be_scored_are_counted_and_kept_apart(table: Path) -> None:
    rows = pq.read_table(table / "part-0.parquet").to_pylist()
    rows[1]["passage"], rows[2]["passage_id"] = None, rows[0]["passage_id"]
    pq.write_table(pa.Table.from_pylist(rows), table / "part-0.parquet")
    summary = flow.run(config(table))
    assert (summary.pairs, summary.rejected) == (30, {"duplicate_pair": 1, "null_passage": 1})
    rejects = pq.read_table(table.parent / "out/rejects").to_pylist()
    assert [(row["row"], row["reason"]) for row in rejects] == [(2, "null_passage"), (3, "duplicate_pair")]
    assert "2 rows rejected" in summary.as_text()


def test_a_shard_with_nothing_to_score_is_a_shard(table: Path) -> None:
    rows = pq.read_table(table / "part-0.parquet").to_pylist()
    for row in rows[:8]:
        row["query"] = None
    pq.write_table(pa.Table.from_pylist(rows), table / "part-0.parquet")
    for name, model in (("out", TINY), ("embedded", MINILM)):
        summary = flow.run(config(table, name, scorer={"model": model}))
        assert (summary.shards, summary.pairs, summary.rejected) == (4, 24, {"null_query": 8})


def test_top_k_and_passage_order_of_equal_scores(table: Path) -> None:
    rows = [
        {"query_id": "q", "query": "same", "passage_id": name, "passage": "text"} for name in ("b", "c", "a")
    ]
    (table / "part-1.parquet").unlink()
    pq.write_table(pa.Table.from_pylist(rows), table / "part-0.parquet")
    summary = flow.run(config(table, output={"top_k": 2}))
    assert summary.copies == 2
    assert "2 pairs took their score from an equal pair of their shard" in summary.as_text()
    run = pq.read_table(table.parent / "out/run").to_pylist()
    assert [(row["passage_id"], row["rank"]) for row in run] == [("a", 1), ("b", 2)]


def test_a_pair_that_does_not_fit_is_named(table: Path) -> None:
    with pytest.raises(InputError) as caught:
        flow.run(config(table, scorer={"query_max_length": 512}))
    place = f"{table}/part-1.parquet row 16: query 7, passage 'p31': "
    assert str(caught.value).startswith(place)
    assert "tokens for a model of 512 positions" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mistakes_surface_before_the_model_loads(table: Path) -> None:
    with pytest.raises(ModelError, match="no such directory"):
        flow.run(config(table, scorer={"model": "./nowhere"}))
    with pytest.raises(InputError, match="no column 'url'"):
        flow.run(config(table, output={"keep_columns": {"url": "url"}}))


def test_markers_that_lie_elsewhere_fail_the_job(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a cluster of several nodes that share no disk: what was reported done is not here.
    monkeypatch.setattr(here, "work", lambda *_: iter(()))
    with pytest.raises(OutputError, match="4 of 4 shards were written, but not here .shard-000000"):
        flow.run(config(table))


@pytest.mark.parametrize("table_format", ["jsonl", "csv"])
def test_other_formats_give_the_same_run(table: Path, table_format: str) -> None:
    frame = pq.read_table(table).drop_columns(["n"]).to_pandas()
    other = table.parent / f"table.{table_format}"
    if table_format == "jsonl":
        frame.to_json(other, orient="records", lines=True, force_ascii=False)
    else:
        frame["passage"] = frame["passage"].replace("", "(none)")
        frame["query"] = frame["query"].replace("", "(none)")
        frame.to_csv(other, index=False)
    flow.run(config(table))
    flow.run(config(table, "other", input={"path": str(other), "format": table_format}))
    one, two = (pq.read_table(table.parent / name / "run").to_pylist() for name in ("out", "other"))
    scores = {(str(row["query_id"]), row["passage_id"]): row["score"] for row in two}
    empty = {"p05", "p06"} if table_format == "csv" else set()
    for row in one:
        if row["passage_id"] not in empty:
            assert abs(scores[str(row["query_id"]), row["passage_id"]] - row["score"]) < 1e-5


def test_a_normalized_run_ranks_by_the_logits(table: Path) -> None:
    """Also where scores come from a previous run, and in run.trec, which trec_eval orders by its scores."""
    model = str(make_saturated(table.parent / "saturated", 40.0))
    output = {"keep_columns": {"number": "n"}}
    flow.run(config(table, "logits", scorer={"model": model}, output=output))
    logits = pq.read_table(table.parent / "logits/run").to_pylist()
    options = {"scorer": {"model": model, "normalize": True}, "output": {"trec_run": True} | output}
    flow.run(config(table, "normalized", **options))
    flow.run(config(table, "reusing", **options, reuse=str(table.parent / "normalized")))
    for out in ("normalized", "reusing"):
        run = pq.read_table(table.parent / out / "run").to_pylist()
        assert {row["score"] for row in run} == {1.0}
        assert [row["number"] for row in run] == [row["number"] for row in logits]
        raw = [row["raw_score"] for row in run]
        assert raw == pytest.approx([row["score"] for row in logits], abs=1e-4)
        assert len(set(raw)) > 16
        lines = [line.split() for line in (table.parent / out / "run.trec").read_text().splitlines()]
        assert [np.float32(fields[4]) for fields in lines] == [np.float32(score) for score in raw]
    flow.run(config(table, "best", scorer=options["scorer"], output={"top_k": 1} | output))
    best = pq.read_table(table.parent / "best/run").to_pylist()
    assert [row["number"] for row in best] == [row["number"] for row in logits if row["rank"] == 1]
