"""What a job would do, told without scoring."""

import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ModelError
from pipeline.reranking import dry_run, flow
from tests.conftest import MINILM, ROOT, TINY
from tests.reranking.jobs import config
from tests.scoring.checkpoints import make_qwen3


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("tokenizer.json", None, "no tokenizer"),
        ("model.safetensors", None, "no \\*.safetensors"),
        ("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0f", "Git LFS pointer"),
        ("model.safetensors", "PK", "no safetensors file"),
        ("config.json", "[]", "config.json: needs an object"),
        ("tokenizer.json", "{}", "tokenizer.json: not a tokenizer"),
        ("modules.json", "{}", "modules.json: needs a list of modules"),
    ],
)
def test_a_dry_run_finds_what_is_wrong_with_a_model(
    table: Path, tmp_path: Path, file: str, content: str | None, named: str
) -> None:
    shutil.copytree(TINY, tmp_path / "model")
    (tmp_path / "model" / file).unlink(missing_ok=True)
    if content is not None:
        (tmp_path / "model" / file).write_text(content)
    with pytest.raises(ModelError, match=named) as caught:
        dry_run.describe(config(table, scorer={"model": str(tmp_path / "model")}))
    assert str(tmp_path / "model") in str(caught.value)


DECODERS = [f"{TINY}-v2-gemma", f"{TINY}-v2-minicpm-layerwise", f"{TINY}-v2.5-gemma2-lightweight"]


@pytest.mark.parametrize("model", [TINY, *DECODERS, "qwen3", MINILM], ids=lambda model: Path(model).name)
def test_a_dry_run_counts_the_tokens_that_the_job_reads(tmp_path: Path, model: str) -> None:
    """On the sample table: texts that are embedded once, queries that decoders read once, equal pairs."""
    sample = str(ROOT / "examples/candidates/part-0.parquet")
    model = str(make_qwen3(tmp_path / "qwen3")) if model == "qwen3" else model
    scorer = {"model": model, "max_batch_tokens": 1024, "max_length": 256}
    settings = config(tmp_path / "in", input={"path": sample}, scorer=scorer, shard_pairs=60)
    found = re.search(r"tokens   about ([\d,]+) ", dry_run.describe(settings))
    assert found is not None
    assert int(found[1].replace(",", "")) == flow.run(settings).tokens


def test_a_dry_run_leaves_out_what_is_reused(table: Path) -> None:
    flow.run(config(table, "previous"))
    text = dry_run.describe(config(table, reuse=str(table.parent / "previous")))
    told = "none needs scoring, all take their score from the previous run or an equal pair"
    assert f"tokens   about 0 in all, estimated from 32 pairs: {told}" in text


def test_the_plan_is_told_without_scoring(table: Path) -> None:
    (table / "notes.txt").write_text("x")
    text = dry_run.describe(config(table))
    assert "2 files, 8 queries, 32 pairs" in text
    assert "4 of up to 8 pairs, 0 of them done" in text
    assert "notes.txt: ends in none of .parquet," in text
    assert not (table.parent / "out").exists()
    flow.run(config(table))
    assert "all of them done: nothing to score" in dry_run.describe(config(table))


def test_what_is_left_is_that_of_shards_whatever_was_rejected(tmp_path: Path) -> None:
    """18 of 20 rows of a query can't be used, and input.top_k takes 2 of them."""
    table = [
        {
            "query_id": q,
            "query": f"query {q}",
            "passage_id": p,
            "passage": f"text {p} of {q}" if p < 2 else None,
        }
        for q in range(10)
        for p in range(20)
    ]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "in/t.parquet")
    settings = config(
        tmp_path / "in",
        input={"path": str(tmp_path / "in"), "top_k": 2},
        shard_pairs=2,
        actors={"price_per_hour": 1},
    )
    flow.run(settings)
    out = tmp_path / "out"
    for name in ("_SUCCESS", "summary.json", *(f"_manifest/done/shard-{at:06d}.json" for at in range(3, 10))):
        (out / name).unlink()
    text = dry_run.describe(settings, "0.001")
    assert "shards   10 of up to 2 pairs, 3 of them done" in text
    assert "time     about 1.9 hours in this process" in text  # of 14 pairs 7 are read
    assert "cost     about 1.94, 138,889.00 a million pairs" in text


def test_rows_that_cant_be_used_take_no_time(tmp_path: Path) -> None:
    table = [
        {"query_id": q, "query": "a query", "passage_id": p, "passage": f"text {p} of {q}" if p < 2 else None}
        for q in range(10)
        for p in range(20)
    ]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "in/t.parquet")
    settings = config(tmp_path / "in")
    text = dry_run.describe(settings, "0.01")
    assert "10 queries, 200 pairs" in text
    assert "time     about 16.7 minutes in this process" in text  # of 20 pairs 10 are read
    found = re.search(r"tokens   about (\d+) in all, estimated from 20 pairs", text)
    assert found is not None
    assert int(found[1]) == flow.run(settings).tokens
