"""A run with judgments as training data, with no file of rows in between."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError, OutputError
from pipeline.finetuning import examples, flow
from pipeline.finetuning.config import DataConfig, FinetuneConfig
from pipeline.finetuning.progress import Metrics
from pipeline.finetuning.sampling import Row
from pipeline.mining import flow as mining
from tests.finetuning.rows import config
from tests.mining.runs import config as mine
from tests.mining.runs import rows, write

Table = list[dict[str, Any]]
NEGATIVES = {"ranks": [2, 6], "number": 3, "relative_margin": 0.05}


def judged(folder: Path, table: Table, **fields: Any) -> dict[str, Any]:
    """The run, and what `data.mined` says of it."""
    path = write(folder / "in", table)
    return {"input": {"path": str(path)}, "positives": {"label": "label"}, "negatives": NEGATIVES, **fields}


def job(folder: Path, mined: dict[str, Any], out: str = "out", **sections: Any) -> FinetuneConfig:
    output = {"path": str(folder / out)}
    return config(folder, data={"path": None, "mined": mined}, output=output, **sections)


def read(mined: dict[str, Any], *, with_scores: bool = False) -> tuple[list[Row], examples.Examples]:
    data = DataConfig.model_validate({"mined": mined})
    with examples.checked(examples.find(data), data, with_scores=with_scores) as found:
        return [found[number] for number in range(len(found))], found


def test_a_query_becomes_a_row_with_the_runs_scores(tmp_path: Path) -> None:
    given, found = read(judged(tmp_path, rows(2), negatives={"ranks": [1, 4]}), with_scores=True)
    assert (found.rejects, found.left_out, found.tables()) == ([], [], {})
    negatives = tuple(f"passage {number} of 1" for number in (0, 2, 3))
    assert given[1] == Row("query 1", ("passage 1 of 1",), negatives, (0.9,), (1.0, 0.8, 0.7))


@pytest.mark.parametrize("by", ["label", "qrels"])
def test_it_trains_the_weights_that_the_rows_of_mine_train(tmp_path: Path, by: str) -> None:
    """Both of several shards of `mine` and of one here."""
    (tmp_path / "qrels").write_text("".join(f"q{number} 0 p1 1\n" for number in range(6)))
    positives = {"label": "label"} if by == "label" else {"qrels": str(tmp_path / "qrels")}
    mined = judged(tmp_path, rows(), positives=positives)
    told = mining.run(mine(tmp_path / "in", "mined", positives=positives, negatives=NEGATIVES))
    assert told.rows == 6
    loss = {"name": "margin_mse"}
    data = {"path": str(tmp_path / "mined/training_rows")}
    flow.run(config(tmp_path, data=data, loss=loss, output={"path": str(tmp_path / "by_files")}))
    summary = flow.run(job(tmp_path, mined, loss=loss))
    model = "model/model.safetensors"
    assert (tmp_path / "out" / model).read_bytes() == (tmp_path / "by_files" / model).read_bytes()
    assert (summary.rows, summary.rejected, summary.left_out) == (6, {}, {})


def test_what_gives_no_row_is_counted_and_written(tmp_path: Path) -> None:
    table = [row | {"query_id": int(row["query_id"][1:])} for row in rows()]
    table[0]["passage"] = None
    table[9]["label"] = 0  # the only positive of query 1
    job_config = job(tmp_path, judged(tmp_path, table), training={"max_steps": 1})
    summary = flow.run(job_config)
    assert (summary.rows, summary.left_out) == (5, {"no_positive": 1})
    assert summary.rejected == {"null_passage": 1}
    assert "1 no_positive: no candidate of the query is a positive" in summary.as_text()
    unmatched = pq.read_table(tmp_path / "out/unmatched").to_pylist()
    assert unmatched == [{"query_id": 1, "reason": "no_positive"}]
    (reject,) = pq.read_table(tmp_path / "out/rejects").to_pylist()
    assert (reject["query_id"], reject["row"], reject["reason"]) == (0, 1, "null_passage")
    assert flow.run(job_config).finished_before is not None


def test_a_start_goes_on_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mined = judged(tmp_path, rows())
    flow.run(job(tmp_path, mined, "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(Metrics, "add", _dying_at(5))
        with pytest.raises(KeyboardInterrupt):
            flow.run(job(tmp_path, mined))
    assert [*(tmp_path / "out/checkpoints").glob("*.pt")]
    other = {**mined, "negatives": {**NEGATIVES, "seed": 1}}
    with pytest.raises(OutputError, match=r"data.mined.negatives.seed: was 0, is 1"):
        flow.run(job(tmp_path, other))
    flow.run(job(tmp_path, mined))
    model = "model/model.safetensors"
    assert (tmp_path / "out" / model).read_bytes() == (tmp_path / "whole" / model).read_bytes()


def _dying_at(step: int) -> Any:
    undisturbed = Metrics.add

    def add(metrics: Metrics, number: int, *others: Any) -> Any:
        if number == step:
            raise KeyboardInterrupt
        return undisturbed(metrics, number, *others)

    return add


def test_changed_judgments_make_another_job(tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text("q0 0 p1 1\n")
    mined = judged(tmp_path, rows(), positives={"qrels": str(tmp_path / "qrels")})
    job_config = job(tmp_path, mined, training={"max_steps": 1})
    assert flow.run(job_config).left_out == {"no_positive": 5}
    (tmp_path / "qrels").write_text("q0 0 p1 1\nq1 0 p1 1\n")
    with pytest.raises(OutputError, match=r"qrels: was .* is "):
        flow.run(job_config)


def test_mistakes_are_told_by_their_field(tmp_path: Path) -> None:
    mined = judged(tmp_path, [row | {"tags": ["a"]} for row in rows()])
    with pytest.raises(InputError, match=r"^data.mined.score: column 'tags' holds list<.*>; name the column"):
        read({**mined, "score": "tags"})
    with pytest.raises(InputError, match=r"^data.mined.positives.label: column 'passage' holds string; a"):
        read({**mined, "positives": {"label": "passage"}})
    with pytest.raises(
        InputError,
        match=r"in: has no row to train on \(6 too_few_negatives\); data.mined.positives tells",
    ):
        read({**mined, "negatives": {"ranks": [100, 200]}})


def test_the_runs_own_folder_is_no_place_for_the_output(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"in/out: lies inside of the input"):
        flow.run(job(tmp_path, judged(tmp_path, rows()), "in/out"))


def test_a_score_that_float32_has_no_room_for_is_none(tmp_path: Path) -> None:
    table = [{**row, "score": 1e39 if row["passage_id"] == "p0" else row["score"]} for row in rows(2)]
    given, _ = read(judged(tmp_path, table, negatives={"ranks": [1, 4]}), with_scores=True)
    assert all("passage 0 of" not in text for row in given for text in row.neg)
