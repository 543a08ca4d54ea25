"""A cascade, from a table to a run, in this process; executors/test_ray_data.py has it on Ray."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError, ModelError
from pipeline.evaluation.runs import read_whole_run
from pipeline.reranking import dry_run, flow, shard, worker
from pipeline.reranking.config import RerankConfig
from pipeline.reranking.flow import plan_job
from pipeline.reranking.sample import sample
from tests.conftest import DATA, TINY
from tests.reranking.jobs import config, data_of

MINICPM = str(DATA / "tiny-bge-reranker-v2-minicpm-layerwise")
FIRST = {"scorer": {"model": TINY, "device": "cpu"}, "keep": 3}
SECOND = {"scorer": {"model": MINICPM, "cutoff_layers": [2], "normalize": True}}


def cascade(table: Path, out: str = "out", **sections: Any) -> RerankConfig:
    return config(table, out, **{"levels": [FIRST, SECOND], **sections})


def run_of(output: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(output / "run").to_pylist()
    return rows


@pytest.fixture
def made(table: Path) -> Path:
    """A cascade's output."""
    flow.run(cascade(table, output={"trec_run": True}))
    return table.parent / "out"


def alone(table: Path, out: str, level: dict[str, Any]) -> dict[str, float]:
    """The raw score of every passage by one level's scorer."""
    flow.run(config(table, out, scorer={**level["scorer"], "normalize": False}))
    return {row["passage_id"]: row["score"] for row in run_of(table.parent / out)}


def test_each_level_scores_the_best_of_the_one_before(table: Path, made: Path) -> None:
    first, second = alone(table, "first", FIRST), alone(table, "second", SECOND)
    run = run_of(made)
    for start in range(0, 32, 4):
        query = run[start : start + 4]
        ids = [row["passage_id"] for row in query]
        best = sorted(ids, key=lambda each: -first[each])
        assert ids == [*sorted(best[:3], key=lambda each: -second[each]), best[3]]
        assert [row["rank"] for row in query] == [row["level_1_rank"] or 4 for row in query] == [1, 2, 3, 4]
        assert [row["level_0_rank"] for row in query] == [best.index(each) + 1 for each in ids]
        np.testing.assert_allclose(
            [row["level_0_score"] for row in query], [first[each] for each in ids], 1e-5
        )
        raw = [row["level_1_raw_score"] for row in query]
        np.testing.assert_allclose(raw[:3], [second[each] for each in ids[:3]], 1e-4)
        np.testing.assert_allclose(
            [row["level_1_score"] for row in query[:3]], 1 / (1 + np.exp(-np.array(raw[:3]))), 1e-5
        )
        assert query[3]["level_1_score"] is raw[3] is None


def test_tools_that_sort_by_score_read_the_ranks(made: Path) -> None:
    rows, top_k = read_whole_run(str(made))
    trec, _ = read_whole_run(str(made / "run.trec"))
    assert top_k is None
    assert [row[:2] for row in rows] == [row[:2] for row in trec]
    for start in range(0, 32, 4):
        scores = [row.score for row in trec[start : start + 4]]
        assert scores == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])


def test_summary_report_and_dry_run_tell_each_level(table: Path) -> None:
    plan = dry_run.describe(cascade(table))
    each = r"132 tokens each, \d+\.\d% cut at max_length \d+, of the model's \d+ positions"
    assert re.search(rf"level 0  about 32 pairs and 4,220 tokens \({each}\), keeps 3 a query: ", plan)
    assert "level 1  about 24 pairs and " in plan
    summary = flow.run(cascade(table))
    assert [level.pairs for level in summary.levels] == [32, 24]
    assert [level.keep for level in summary.levels] == [3, None]
    assert (summary.pairs, summary.kept) == (32, 32)
    assert summary.tokens == sum(level.tokens for level in summary.levels)
    assert summary.scores == summary.levels[1].scores
    text = summary.as_text()
    assert text.startswith("32 pairs of 8 queries scored by a cascade of 2 levels in ")
    assert f"  levels.1: 24 pairs by {MINICPM}, " in text
    again = flow.run(cascade(table))
    assert again.model_dump() == summary.model_dump()
    report = (table.parent / "out/report.html").read_text()
    assert "All candidates that it saw" in report
    assert "3 a query" in report


@pytest.mark.parametrize(
    ("levels", "top_k", "kept"),
    [
        ([FIRST | {"drop": True}, SECOND], None, 3),
        ([FIRST, SECOND | {"keep": 2}], None, 2),
        ([FIRST, SECOND | {"keep": 2}], 1, 1),
        ([FIRST | {"keep": 100}, SECOND], None, 4),  # more than any query has
        ([FIRST | {"keep": 100}, SECOND | {"keep": 50}], None, 4),
    ],
)
def test_what_stays_in_the_run(
    table: Path, made: Path, levels: list[dict[str, Any]], top_k: int | None, kept: int
) -> None:
    # Scores are taken from the run before: what stays is the question.
    job = cascade(table, "cut", levels=levels, output={"top_k": top_k}, reuse=str(made))
    summary = flow.run(job)
    run = run_of(table.parent / "cut")
    assert [row["rank"] for row in run] == list(range(1, kept + 1)) * 8
    assert read_whole_run(str(table.parent / "cut"))[1] == job.depth == summary.top_k
    assert sum(level.pairs - level.reused for level in summary.levels) == (
        8 if levels[0]["keep"] == 100 else 0
    )


def test_levels_that_fuse_rank_by_the_mix(table: Path, made: Path) -> None:
    fusing = SECOND | {"fuse": {"method": "weighted", "weights": [1, 0]}}
    flow.run(cascade(table, "fused", levels=[FIRST, fusing], reuse=str(made)))
    for row in run_of(table.parent / "fused"):
        # Of weight 1 and 0 the first level's order is left.
        assert row["rank"] == row["level_0_rank"]
        assert (row["level_1_fused"] is None) == (row["rank"] == 4)


def test_a_start_after_a_break_redoes_only_what_was_not_done(table: Path, made: Path) -> None:
    before = data_of(made)
    for lost in ("_SUCCESS", "summary.json", "_manifest/done/shard-000001.json", "run/shard-000001.parquet"):
        (made / lost).unlink()
    summary = flow.run(cascade(table, output={"trec_run": True}))
    assert (summary.shards_done_before, [level.pairs for level in summary.levels]) == (3, [32, 24])
    assert data_of(made) == before


def test_a_start_after_one_that_broke_off_between_levels_writes_the_same(
    table: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, calls = shard.score, []

    def breaking(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:  # the second shard, at the second level
            raise KeyboardInterrupt
        return work(*arguments)

    job = cascade(table, "broken", output={"trec_run": True})
    with monkeypatch.context() as patch:
        patch.setattr(worker, "score", breaking)
        with pytest.raises(KeyboardInterrupt):
            flow.run(job)
    assert flow.run(job).shards_done_before == 1
    assert data_of(table.parent / "broken") == data_of(made)


def test_other_levels_under_the_same_name_are_refused(table: Path, made: Path) -> None:
    with pytest.raises(Exception, match=r"levels.0.keep: was 3, is 2"):
        flow.run(cascade(table, levels=[FIRST | {"keep": 2}, SECOND], output={"trec_run": True}))
    moved = {"min": 1, "max": 2}
    other_actors = [FIRST | {"actors": moved}, SECOND]
    flow.run(cascade(table, levels=other_actors, output={"trec_run": True}))


def test_scores_are_reused_by_each_scorer_wherever_it_stood(table: Path, made: Path) -> None:
    again = flow.run(cascade(table, "again", reuse=str(made), output={"trec_run": True}))
    assert [(level.pairs, level.reused, level.tokens) for level in again.levels] == [(32, 32, 0), (24, 24, 0)]
    assert data_of(table.parent / "again") == data_of(made)
    # The second level's scorer alone: what that level did not see is scored.
    single = flow.run(config(table, "single", scorer=SECOND["scorer"], reuse=str(made)))
    assert (single.pairs, single.reused) == (32, 24)
    # And the other way round, as the second level of another cascade.
    turned = [SECOND | {"keep": 2}, {"scorer": FIRST["scorer"]}]
    summary = flow.run(cascade(table, "turned", levels=turned, reuse=str(table.parent / "single")))
    assert [level.reused for level in summary.levels] == [32, 0]
    other = {"scorer": {"model": TINY, "max_length": 99}}
    with pytest.raises(InputError, match=r"another scorer's \(scorer.max_length was not given, is 99\)"):
        flow.run(config(table, "other", reuse=str(made), **other))


def test_a_dry_run_lets_known_scores_tell_who_goes_on(table: Path, made: Path) -> None:
    again = cascade(table, "again", reuse=str(made))
    assert dry_run.describe(again).count("none needs scoring") == 2
    # Of a query without any known score, and of a candidate beside known ones, it still counts all.
    rows = pq.read_table(table).to_pylist()
    changed = [row | {"passage": "new"} if at in (0, 4, 5, 6, 7) else row for at, row in enumerate(rows)]
    shutil.rmtree(table)
    table.mkdir()
    pq.write_table(pa.Table.from_pylist(changed), table / "part.parquet")
    planned = plan_job(again, may_ask=False)
    supposed = sample(planned.config, planned.plan, planned.record)
    summary = flow.run(again)
    assert supposed[0].read == summary.levels[0].pairs - summary.levels[0].reused
    assert [found.candidates for found in supposed] == [level.pairs for level in summary.levels]


def test_equal_pairs_score_alike_at_each_level(table: Path) -> None:
    for file in table.glob("*.parquet"):
        rows = pq.read_table(file).to_pylist()
        for first in range(0, len(rows), 4):
            rows[first + 1] |= {text: rows[first][text] for text in ("query", "passage")}
        pq.write_table(pa.Table.from_pylist(rows), file)
    summary = flow.run(cascade(table))
    assert summary.copies == summary.levels[0].copies == 8
    assert summary.levels[1].copies > 0
    run = {row["passage_id"]: row for row in run_of(table.parent / "out")}
    for first in range(0, 32, 4):
        one, copy = run[f"p{first:02}"], run[f"p{first + 1:02}"]
        assert one["level_0_score"] == copy["level_0_score"]
        assert copy["level_0_rank"] == one["level_0_rank"] + 1  # at the edge it is cut, and the other not
        if copy["level_1_score"] is not None:
            assert one["level_1_score"] == copy["level_1_score"]


def test_mistakes_name_the_level(table: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^levels\.1\.scorer: .*nowhere"):
        flow.run(cascade(table, levels=[FIRST, {"scorer": {"model": str(tmp_path / "nowhere")}}]))
    shutil.copytree(MINICPM, tmp_path / "cut")
    weights = tmp_path / "cut/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ModelError, match=r"^levels\.1\.scorer: .*cut"):
        flow.run(cascade(table, levels=[FIRST, {"scorer": {"model": str(tmp_path / "cut")}}]))
    tight = {"scorer": {"model": TINY, "query_max_length": 512}}
    with pytest.raises(InputError, match=r"row \d+: query \d, passage 'p\d\d': levels\.1\.scorer: "):
        flow.run(cascade(table, levels=[FIRST | {"keep": 4}, tight]))


def test_a_shard_that_kills_its_processes_is_given_up_by_level(table: Path) -> None:
    attempts = table.parent / "out/_manifest/attempts"
    attempts.mkdir(parents=True)
    (attempts / "shard-000001.levels.0.encode.json").write_text("3")  # what killed processes leave
    (attempts / "shard-000002.levels.1.score.json").write_text("3")
    summary = flow.run(cascade(table))
    assert [(one.name, one.stage) for one in summary.quarantined] == [
        ("shard-000001", "levels.0.encode"),
        ("shard-000002", "levels.1.score"),
    ]
    assert summary.pairs == 16
    assert flow.run(cascade(table)).quarantined == []  # the next start tries them again
