"""{run_date} and {previous_run_date} in a config."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import TemporaryError
from pipeline.mining import flow as mining
from pipeline.preparation import flow as preparation
from pipeline.reranking.config import RerankConfig
from pipeline.retrieval.config import RetrieveConfig
from tests.mining import runs
from tests.preparation import tables
from tests.reranking.test_config import GOOD, load, refuse

DATED = GOOD.replace("in/", "in/{run_date}/").replace("out/", "s3://b/{run_date}/v1/{run_date}")


def test_the_date_stands_in_every_field_that_says_where_things_lie(tmp_path: Path) -> None:
    trec = "  format: trec\n  queries: q-{run_date}.tsv\n  passages: p-{run_date}.tsv\noutput:"
    text = DATED.replace("output:", trec).replace("some/model", "models/{run_date}")
    config = load(tmp_path, text, "run_date=2026-11-20", "scorer.peft_path=lora/{run_date}")
    assert (config.input.path, config.output.path) == ("in/2026-11-20/", "s3://b/2026-11-20/v1/2026-11-20")
    assert (config.input.queries, config.input.passages) == ("q-2026-11-20.tsv", "p-2026-11-20.tsv")
    assert config.scorer is not None
    assert (config.scorer.model, config.scorer.peft_path) == ("models/2026-11-20", "lora/2026-11-20")
    assert RerankConfig.model_validate(config.model_dump()) == config


@pytest.mark.parametrize("written", ["2026-11-20", "'2026-11-20'"])
def test_a_date_is_one_from_the_file_and_from_the_command_line(tmp_path: Path, written: str) -> None:
    in_file = load(tmp_path, f"{DATED}run_date: {written}\n")
    assert in_file == load(tmp_path, DATED, f"run_date={written}")
    assert in_file == load(tmp_path, f"{DATED}run_date: 2020-01-01\n", f"run_date={written}")


def test_the_date_decides_nothing_but_the_paths(tmp_path: Path) -> None:
    one, other = (load(tmp_path, DATED, f"run_date=2026-11-{day}") for day in (20, 21))
    assert one.output.path != other.output.path
    assert one.fingerprint == other.fingerprint == load(tmp_path, GOOD).fingerprint


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (DATED, (), "job.yaml: input.path in/{run_date}/ needs the date: --set run_date=2026-11-20"),
        (DATED, ("run_date=null",), "input.path in/{run_date}/ needs the date"),
        (
            GOOD,
            ("run_date=2026-11-20",),
            "job.yaml: run_date: no path uses it; write {run_date} in output.path",
        ),
        (
            GOOD,
            ("output.path=out/{date}",),
            "output.path out/{date}: there is no {date}; write {run_date}",
        ),
        (GOOD, ("reuse=out/{run_date}/",), "reuse out/{run_date}/ needs the date: --set run_date=2026-11-20"),
        (GOOD, ("reuse=out/{previous_run_date}/",), "reuse out/{previous_run_date}/ needs the date"),
        (
            DATED,
            ("run_date=2026-11-20", "reuse=out/{previous_date}/"),
            "there is no {previous_date}; write {run_date} or {previous_run_date}",
        ),
        (
            DATED,
            ("run_date=2026-11-20", "input.path=in/{previous_run_date}/"),
            "input.path in/{previous_run_date}/: there is no {previous_run_date}; write {run_date}",
        ),
        (DATED, ("run_date=2026-11-20", "scorer.model=m/{ds}"), "scorer.model m/{ds}: there is no {ds}"),
        ("input: {path: in/{run_date}/}\n", (), "between { and }, write a path with a date in quotes"),
        (
            "input: {path: 'in/{rundate}/'}\noutput: {path: out}\nscorer: {model: m}\n",
            ("run_date=2026-11-20",),
            "input.path in/{rundate}/: there is no {rundate}; write {run_date}",
        ),
        (DATED, ("run_date=20261120",), "--set: run_date: needs a date such as 2026-11-20, not 20261120"),
        (DATED, ("run_date=2026-11-20T00:00:00",), "--set: run_date: needs a date such as 2026-11-20"),
        (
            DATED,
            ("run_date=2026-13-01",),
            "--set run_date=2026-13-01: line 1: 2026-13-01 can't be read: month must be in",
        ),
        (DATED, ("run_date='2026-02-30'",), "--set: run_date: day"),
        (
            DATED + "run_date: 2026-13-01\n",
            (),
            "job.yaml: line 7: 2026-13-01 can't be read: month must be in 1..12",
        ),
    ],
)
def test_wrong_dates_are_named(tmp_path: Path, text: str, overrides: tuple[str, ...], message: str) -> None:
    assert message in refuse(tmp_path, text, *overrides)


def test_a_first_stage_has_places_too() -> None:
    scorer = {"model": "models/{run_date}", "peft_path": "lora/{run_date}", "max_length": 64}
    tree: dict[str, Any] = {
        "passages": {"path": "in/{run_date}/", "success_file": "{not a place}"},
        "queries": {"path": "queries/{run_date}.parquet"},
        "sources": {"words": {"bm25": {}}, "bge": {"dense": {"scorer": scorer}}},
        "output": {"path": "out/{run_date}/"},
        "reuse": "out/{previous_run_date}/",
        "run_date": "2026-11-20",
    }
    config = RetrieveConfig.model_validate(tree)
    dense = config.sources["bge"].dense
    assert dense is not None
    found = (config.passages.path, config.queries.path, config.output.path, dense.scorer.model)
    assert found == ("in/2026-11-20/", "queries/2026-11-20.parquet", "out/2026-11-20/", "models/2026-11-20")
    assert (dense.scorer.peft_path, config.reuse) == ("lora/2026-11-20", "out/{previous_run_date}/")
    other = RetrieveConfig.model_validate(tree | {"run_date": "2026-11-21"})
    assert config.determining_fields() == other.determining_fields()
    undated = {key: {"path": "a"} for key in ("passages", "queries", "output")}
    with pytest.raises(ValueError, match=r"sources.bge.dense.scorer.model models/{run_date} needs the date"):
        RetrieveConfig.model_validate(tree | undated | {"run_date": None, "reuse": None})


def test_tables_to_prepare_or_to_mine_may_be_late(tmp_path: Path) -> None:
    dated = f"{tmp_path}/{{run_date}}"
    given: dict[str, Any] = {"output": {"path": f"{dated}/out"}, "run_date": "2026-11-20"}
    (tmp_path / "2026-11-20").mkdir()
    for name in ("queries", "corpus"):
        tables.write_jsonl(tmp_path / f"{name}.jsonl", [{"_id": "1", "text": "one"}])
    late = r"2026-11-20/run.*: no such file.* It is not there yet, since its path has the date"
    to_prepare = tables.config(tmp_path, {"path": f"{dated}/run.trec", "format": "trec"}, **given)
    with pytest.raises(TemporaryError, match=late):
        preparation.run(to_prepare)
    mined = {"output": {"path": f"{tmp_path}/mined"}}
    to_mine = runs.config(tmp_path / "in", input={"path": f"{dated}/run"}, **(given | mined))
    with pytest.raises(TemporaryError, match=late):
        mining.run(to_mine)
    (tmp_path / "2026-11-20/run.trec").write_text("1 Q0 1 1 2.0 bm25\n")
    assert preparation.run(to_prepare).written == 1
    assert preparation.run(to_prepare.model_copy(update={"run_date": None})).finished_before
    runs.write(tmp_path / "2026-11-20/run", runs.rows())
    assert mining.run(to_mine).rows == 6
