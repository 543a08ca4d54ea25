"""A training from rows to a checkpoint that others load, in this process."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
import yaml
from sentence_transformers import CrossEncoder

from pipeline.errors import ConfigError, InputError, OutputError, TrainingError
from pipeline.finetune import main
from pipeline.finetuning import flow
from pipeline.finetuning.config import HeldOutConfig
from pipeline.finetuning.held_out import HeldOut, Measured
from pipeline.finetuning.progress import Metrics
from pipeline.finetuning.start import put_head
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.status import main as status
from pipeline.tables.output.directory import Directory
from tests.conftest import DATA, TINY
from tests.finetuning.rows import ROWS, config, write
from tests.scoring.checkpoints import make_modular, make_trunk

PAIRS = [(row["query"], passage) for row in ROWS[:3] for passage in (*row["pos"], *row["neg"])]
MINICPM = str(DATA / "tiny-bge-reranker-v2-minicpm-layerwise")


def weights(folder: Path) -> bytes:
    return (folder / "out/model/model.safetensors").read_bytes()


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out/metrics.jsonl").read_text().splitlines()]


def scores_of(folder: Path, **options: Any) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return Scorer(ScorerConfig(model=str(folder / "out/model"), device="cpu", **options)).score(PAIRS)


def held_out(folder: Path, relevant: tuple[int, ...] = (3, 4), **options: Any) -> dict[str, Any]:
    """The rows' own queries, each with its three negatives and then its two positives."""
    rows = [
        {"query_id": number, "query": row["query"], "passage_id": f"{number}-{place}", "passage": passage}
        for number, row in enumerate(ROWS)
        for place, passage in enumerate([*row["neg"], *row["pos"]])
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "held_out.parquet")
    judged = [f"{number} 0 {number}-{place} 1\n" for number in range(6) for place in relevant]
    (folder / "qrels.txt").write_text("".join([*judged, "other 0 p 1\n"]))
    paths = {"candidates": {"path": str(folder / "held_out.parquet")}, "qrels": str(folder / "qrels.txt")}
    return {**paths, "every_steps": 3, **options}


def test_held_out_ids_may_be_bytes(tmp_path: Path) -> None:
    given = held_out(tmp_path)
    table = pq.read_table(tmp_path / "held_out.parquet")
    for at, name in ((0, "query_id"), (2, "passage_id")):
        ids = [str(each).encode() for each in table[name].to_pylist()]
        table = table.set_column(at, name, pa.array(ids, pa.binary()))
    pq.write_table(table, tmp_path / "held_out.parquet")
    assert HeldOut(HeldOutConfig.model_validate(given)).queries == 6


def test_held_out_scores_that_are_equal_rank_as_a_job_ranks_them(tmp_path: Path) -> None:
    """By passage id, numbers by size: a measure of trec_eval's own order would take the last one first."""
    columns = {"query_id": [1] * 3, "query": ["q"] * 3, "passage_id": [2, 9, 10], "passage": ["the same"] * 3}
    pq.write_table(pa.table(columns), tmp_path / "equal.parquet")
    for relevant, expected in ((2, 1.0), (9, 1 / np.log2(3)), (10, 0.5)):
        (tmp_path / "qrels.txt").write_text(f"1 0 {relevant} 1\n")
        given = {"candidates": {"path": f"{tmp_path}/equal.parquet"}, "qrels": f"{tmp_path}/qrels.txt"}
        measured = HeldOut(HeldOutConfig.model_validate(given)).measure(
            Path(TINY), ScorerConfig(model=TINY, device="cpu")
        )
        assert measured.mean == pytest.approx(expected)


def test_held_out_rows_that_cant_be_used_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = held_out(tmp_path)
    rows = pq.read_table(tmp_path / "held_out.parquet").to_pylist()
    rows[1]["passage"] = None
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "held_out.parquet")
    HeldOut(HeldOutConfig.model_validate(given))
    assert "held-out rows left out rows=1" in caplog.text
    assert "row=2 reason=null_passage" in caplog.text


def test_nothing_of_a_start_without_a_checkpoint_stays_in_the_metrics(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "nDCG@10": 0.5}\n{"step": 2, "loss": 1.0}\n')
    assert Metrics(Directory(str(tmp_path)), 0)._lines == []
    assert [line["step"] for line in Metrics(Directory(str(tmp_path)), 1)._lines] == [0]


def test_the_checkpoint_scores_alike_here_in_sentence_transformers_and_in_transformers(
    tmp_path: Path,
) -> None:
    summary = flow.run(config(tmp_path))
    model = tmp_path / "out/model"
    ours = scores_of(tmp_path)
    theirs = CrossEncoder(str(model), device="cpu").predict(PAIRS, activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(model).eval()
    encoded = tokenizer(
        [query for query, _ in PAIRS], [passage for _, passage in PAIRS], return_tensors="pt", padding=True
    )
    with torch.no_grad():
        np.testing.assert_allclose(ours, network(**encoded).logits[:, 0], atol=1e-4)
    assert np.abs(ours - Scorer(ScorerConfig(model=TINY, device="cpu")).score(PAIRS)).max() > 0.1
    assert (summary.rows, summary.steps, summary.pairs, summary.rejected) == (6, 6, 36, {})
    told = lines(tmp_path)
    assert [line["step"] for line in told] == [1, 2, 3, 4, 5, 6]
    assert [line["epoch"] for line in told] == [0, 0, 0, 1, 1, 1]
    assert told[0]["learning_rate"] == 1e-3
    assert told[-1]["loss"] == summary.loss
    assert "learning_rate: 0.001" in (model / "README.md").read_text()


def test_a_layerwise_decoder_keeps_its_layout(tmp_path: Path) -> None:
    flow.run(config(tmp_path, scorer={"model": MINICPM}, training={"use_lora": True, "max_steps": 2}))
    published, made = (
        json.loads((Path(folder) / "config.json").read_text()) for folder in (MINICPM, tmp_path / "out/model")
    )
    assert made == published
    scores = scores_of(tmp_path, cutoff_layers=(2, 6))
    assert scores.shape == (len(PAIRS), 2)
    assert np.isfinite(scores).all()


def test_a_plain_encoder_gets_a_head_that_the_seed_decides(tmp_path: Path) -> None:
    trunk = make_trunk(tmp_path / "trunk", "bert")
    heads = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        put_head(ScorerConfig(model=str(trunk)), tmp_path / name, seed)
        heads.append(Scorer(ScorerConfig(model=str(tmp_path / name), device="cpu")).score(PAIRS))
    assert np.array_equal(heads[0], heads[1])
    assert not np.array_equal(heads[0], heads[2])
    summary = flow.run(config(tmp_path, scorer={"model": str(trunk)}, fresh_head=True))
    assert summary.steps == 6
    assert len({*scores_of(tmp_path).tolist()}) > 1
    with pytest.raises(ConfigError, match=r"^scorer.model .*tiny-bge-reranker: .* has a head of its own"):
        flow.run(config(tmp_path, fresh_head=True))
    modular = str(make_modular(tmp_path / "modular", "bert"))
    with pytest.raises(ConfigError, match=r"^scorer.model .*: BertModel has a head of its own"):
        flow.run(config(tmp_path, scorer={"model": modular}, fresh_head=True))


def test_the_best_of_what_is_measured_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each measurement is made to come out at half of the one before: the first step's is the best."""
    measure, seen = HeldOut.measure, list[bytes]()

    def falling(self: HeldOut, folder: Path, scorer: ScorerConfig) -> Measured:
        seen.append((folder / "model.safetensors").read_bytes())
        return Measured(measure(self, folder, scorer).values * 0.5 ** len(seen))

    monkeypatch.setattr(HeldOut, "measure", falling)
    job = config(tmp_path, held_out=held_out(tmp_path, (1,), every_steps=1), training={"num_train_epochs": 3})
    with caplog.at_level(logging.INFO):
        summary = flow.run(job)
    assert [*summary.measured] == [*range(10)]
    told = [message for message in caplog.messages if message.startswith("measur")]
    assert told == [
        line
        for step, value in summary.measured.items()
        for line in (f"measuring steps={step}/9 queries=6", f"measured steps={step}/9 nDCG@10={value:.4f}")
    ]
    assert (summary.held_out_queries, summary.best_step) == (6, 1)
    assert weights(tmp_path) == seen[1] != seen[9]
    measured = [line for line in lines(tmp_path) if "nDCG@10" in line]
    assert [(line["step"], line["nDCG@10"]) for line in measured] == [*summary.measured.items()]
    card = (tmp_path / "out/model/README.md").read_text()
    assert "| steps | nDCG@10 on 6 held-out queries |" in card
    assert "6 of the rows have a query that is held out as well" in card
    page = (tmp_path / "out/report.html").read_text()
    assert f"step 1: nDCG@10 {summary.measured[1]:.4g}" in page
    assert "kept: step 1<" in page
    assert page.count("<polyline") == 3


def test_rows_with_a_query_that_is_held_out_are_counted(tmp_path: Path) -> None:
    """Case and white space aside."""
    strange = {0: "WHAT is  number 0?", 1: "what is number 1"}
    write(tmp_path / "rows.jsonl", [row | {"query": strange[at]} for at, row in enumerate(ROWS[:2])])
    summary = flow.run(config(tmp_path, held_out=held_out(tmp_path)))
    assert summary.rows_held_out == 1
    assert "Too good to trust: 1 rows have a query that is held out" in summary.as_text()


def test_patience_ends_a_training_that_learns_nothing(tmp_path: Path) -> None:
    settings = held_out(tmp_path, every_steps=1, patience=2)
    summary = flow.run(config(tmp_path, held_out=settings, training={"learning_rate": 1e-9}))
    assert (summary.steps, summary.planned_steps, summary.best_step) == (3, 6, 1)


def test_measuring_does_not_change_what_is_learned(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("without", "with")]
    for folder in folders:
        folder.mkdir()
        measured = {"held_out": held_out(folder, every_steps=6)} if folder.name == "with" else {}
        flow.run(config(folder, **measured))
    assert weights(folders[0]) == weights(folders[1])


def test_a_finished_job_is_left_alone_and_another_one_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flow.run(config(tmp_path))
    assert flow.run(config(tmp_path)).finished_before is not None
    assert status(["--output", str(tmp_path / "out")]) == 0
    assert "6 of 6 done" in capsys.readouterr().out
    with pytest.raises(OutputError, match=r"training.learning_rate: was 0.001, is 0.1"):
        flow.run(config(tmp_path, training={"learning_rate": 0.1}))
    assert flow.run(config(tmp_path, scorer={"truncation": "flag_embedding"})).finished_before is not None
    with pytest.raises(OutputError, match=r'scorer.truncation: was "flag_embedding", is "longest_first"'):
        flow.run(config(tmp_path, scorer={"truncation": "longest_first"}))
    write(tmp_path / "rows.jsonl", ROWS[1:])
    with pytest.raises(OutputError, match=r"rows.jsonl: was"):
        flow.run(config(tmp_path))


def test_rejected_rows_are_told_and_the_exit_status_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "rows.jsonl", [{"query": "q", "pos": [], "neg": ["n"]}, *ROWS])
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(config(tmp_path).model_dump(mode="json", exclude_defaults=True)))
    assert main(["--config", str(file), "--set", "training.max_steps=1"]) == 3
    told = capsys.readouterr()
    assert "1 no_positives: pos is missing, empty or no list" in told.out
    (logged,) = [line for line in told.err.splitlines() if "rejected" in line]
    assert f"{tmp_path}/rows.jsonl row 1, no_positives" in logged
    (reject,) = pq.read_table(tmp_path / "out/rejects").to_pylist()
    assert (reject["row"], reject["reason"]) == (1, "no_positives")


def test_a_training_that_leaves_the_numbers_stops(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"^step \d+: the (loss|gradient's norm) is (nan|inf)"):
        flow.run(config(tmp_path, training={"learning_rate": 1e30}))
    assert not (tmp_path / "out/model").exists()


def test_held_out_queries_without_a_judgment_are_refused(tmp_path: Path) -> None:
    settings = held_out(tmp_path)
    (tmp_path / "qrels.txt").write_text("other 0 p 1\n")
    with pytest.raises(InputError, match=r"qrels.txt: judges none of the queries of .*held_out.parquet"):
        flow.run(config(tmp_path, held_out=settings))
