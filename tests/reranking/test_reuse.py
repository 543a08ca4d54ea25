"""Scores of a former run: which one can be reused, and what is taken of it."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError, OutputError
from pipeline.job_record import read_record, write_record
from pipeline.output import finish
from pipeline.reranking import dry_run, flow
from pipeline.reranking.reuse import check_previous
from pipeline.tables.output.directory import Directory
from tests.conftest import golden_cases
from tests.reporting.reports import summary
from tests.reranking.jobs import config, data_of
from tests.scoring.checkpoints import edit, make_cross_encoder
from tests.test_output import RECORD as ANY

CONFIG = {"scorer.dtype": "float32", "scorer.device": "cpu", "shard_pairs": 8}
RECORD = ANY.model_copy(update={"config": CONFIG})


@pytest.fixture
def previous(tmp_path: Path) -> Directory:
    """A finished run."""
    output = Directory(str(tmp_path / "previous"))
    write_record(output, RECORD)
    finish(output, summary(), [], complete=True)
    return output


def test_a_run_of_the_same_scorer_is_taken(previous: Directory) -> None:
    check_previous(previous.url, RECORD)
    moved = RECORD.model_copy(update={"config": CONFIG | {"scorer.device": "cuda", "shard_pairs": 9}})
    check_previous(previous.url, moved)


def test_one_of_another_scorer_is_refused(previous: Directory) -> None:
    other = RECORD.model_copy(update={"config": CONFIG | {"scorer.dtype": "float16"}})
    with pytest.raises(InputError, match=r'another scorer.s \(scorer.dtype was "float32", is "float16"\)'):
        check_previous(previous.url, other)
    with pytest.raises(InputError, match="the model's weights or files differ"):
        check_previous(previous.url, RECORD.model_copy(update={"models": {"scorer": "n"}}))


def test_what_is_no_finished_run_is_refused(previous: Directory, tmp_path: Path) -> None:
    prepared = Directory(str(tmp_path / "prepared"))
    write_record(prepared, RECORD.model_copy(update={"command": "prepare"}))
    finish(prepared, summary(), [], complete=True)
    previous.write("summary.json", b"{")
    with pytest.raises(InputError, match=r"previous/summary.json: is damaged; start its job again"):
        check_previous(previous.url, RECORD)
    previous.remove_file("summary.json")
    for nothing in (previous.url, prepared.url, f"{previous.url}/nowhere"):
        with pytest.raises(InputError, match=r"no finished run.*leave reuse out"):
            check_previous(nothing, RECORD)


def test_one_of_another_format_is_refused(previous: Directory) -> None:
    write_record(previous, RECORD.model_copy(update={"format_version": 99}))
    with pytest.raises(OutputError, match="was written by a newer version of this program"):
        check_previous(previous.url, RECORD)


MINICPM = "tiny-bge-reranker-v2-minicpm-layerwise"


def changed(table: Path) -> Path:
    """The table of the next night: other ids, two passages changed, a query gone and another come."""
    rows = pq.read_table(table).to_pylist()[4:]
    rows = [{**row, "query_id": row["query_id"] + 100} for row in rows]
    rows[5]["passage"] += " changed"
    rows[17]["passage"] += " changed"
    rows += [{**row, "query_id": 1, "query": "a new one"} for row in rows[:4]]
    target = table.parent / "next"
    target.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), target / "all.parquet")
    return target


@pytest.mark.parametrize("layers", [None, [2, 6, 4]])
def test_pairs_that_a_former_run_scored_take_its_scores(
    table: Path, monkeypatch: pytest.MonkeyPatch, layers: list[int] | None
) -> None:
    scorer = {"model": next(one.checkpoint for one in golden_cases(MINICPM)), "cutoff_layers": layers}
    scorer = {} if layers is None else scorer
    options: dict[str, Any] = {"scorer": scorer, "output": {"keep_columns": {"number": "n"}, "top_k": 2}}
    flow.run(config(table, "previous", **options))
    following = changed(table)
    reuse = str(table.parent / "previous")
    summary = flow.run(config(following, "reusing", **options, shard_pairs=12, reuse=reuse))
    full = flow.run(config(following, "full", **options, shard_pairs=12))
    assert (summary.pairs, summary.reused, full.reused) == (32, 26, 0)
    assert 0 < summary.tokens < full.tokens / 3
    assert summary.truncated == full.truncated
    assert ", 6 of them scored by " in summary.as_text()
    assert "26 pairs (81.2%) took their score from the previous run" in summary.as_text()
    runs = [pq.read_table(table.parent / out / "run") for out in ("reusing", "full")]
    for name in runs[0].column_names:
        one, other = (run[name].to_pylist() for run in runs)
        assert one == (pytest.approx(other, abs=1e-5) if name.startswith("score") else other)
    # A chain of nights: what was taken is there to be taken again, and nothing is left to score.
    again = flow.run(
        config(following, "again", **options, shard_pairs=12, reuse=str(table.parent / "reusing"))
    )
    assert (again.reused, again.tokens) == (32, 0)
    assert again.as_text().startswith("32 pairs of 8 queries, none of which had to be scored, in ")
    assert "padding" not in again.as_text()


def test_a_run_of_other_texts_is_no_help_and_that_is_told(table: Path) -> None:
    flow.run(config(table, "previous"))
    reuse = str(table.parent / "previous")
    other = table.parent / "other"
    other.mkdir()
    rows = [{"query_id": "q", "query": "new", "passage_id": f"p{at}", "passage": f"new {at}"} for at in "ab"]
    pq.write_table(pa.Table.from_pylist(rows), other / "part-0.parquet")
    settings = config(other, "new", reuse=reuse)
    assert f"reuse    0.0% of pairs have their score in {reuse}" in dry_run.describe(settings)
    told = f"reuse: none, since no pair has its score in {reuse}; every pair was scored"
    assert told in flow.run(settings).as_text()
    assert data_of(table.parent / "again") == data_of(table.parent / "reusing")


def test_normalized_scores_of_a_run_that_kept_no_logits_are_not_reused(table: Path) -> None:
    options: dict[str, Any] = {"scorer": {"normalize": True}}
    flow.run(config(table, "previous", **options))
    for file in (table.parent / "previous/scores").iterdir():
        pq.write_table(pq.read_table(file).drop_columns("raw_score"), file)
    with pytest.raises(InputError, match=r"scores/shard-000000.parquet: has \d+ bytes, .*leave reuse out"):
        flow.run(config(table, reuse=str(table.parent / "previous"), **options))


def test_a_former_run_of_another_scorer_is_refused(table: Path) -> None:
    with pytest.raises(InputError, match="previous: no finished run"):
        flow.run(config(table, reuse=str(table.parent / "previous")))
    flow.run(config(table, "previous"))
    with pytest.raises(InputError, match="scorer.max_length was not given, is 64"):
        flow.run(config(table, reuse=str(table.parent / "previous"), scorer={"max_length": 64}))
    assert not (table.parent / "out").exists()


def test_what_a_checkpoint_makes_of_a_truncation_that_is_not_set_is_compared(
    table: Path, tmp_path: Path
) -> None:
    """Its makers' own and FlagEmbedding's give long pairs other scores."""
    path = make_cross_encoder(tmp_path / "saved", "bert")
    edit(path / "config.json", sentence_transformers={"version": "6.2.0"})

    def run(out: str = "out", **fields: Any) -> Any:
        truncation = fields.pop("truncation", None)
        return flow.run(config(table, out, scorer={"model": str(path), "truncation": truncation}, **fields))

    run()
    assert run(truncation="longest_first").finished_before is not None
    other = 'scorer.truncation:? was "longest_first", is "flag_embedding, not as its makers cut"'
    with pytest.raises(OutputError, match=other):
        run(truncation="flag_embedding")
    with pytest.raises(InputError, match=other):
        run("new", truncation="flag_embedding", reuse=str(table.parent / "out"))
    # A record of earlier versions, where what was not set stood as flag_embedding, is mixed with neither.
    record = read_record(Directory(str(table.parent / "out")))
    assert record is not None
    record.config["scorer.truncation"] = "flag_embedding"
    write_record(Directory(str(table.parent / "out")), record)
    for truncation in (None, "flag_embedding"):
        with pytest.raises(OutputError, match='scorer.truncation: was "flag_embedding", is'):
            run(truncation=truncation)
    edit(path / "config.json", sentence_transformers=...)  # as FlagEmbedding's own
    run("own")
    assert run("own", truncation="flag_embedding").finished_before is not None
    # What decides the scores is told in the report, whoever decided it.
    assert "flag_embedding" in (table.parent / "own/report.html").read_text()
