"""{run_date} and {previous_run_date} in a config."""

from pathlib import Path

import pytest

from pipeline.reranking.config import RerankConfig
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
        (DATED, ("run_date=20261120",), "--set: run_date: needs a date such as 2026-11-20, not 20261120"),
        (DATED, ("run_date=2026-11-20T00:00:00",), "--set: run_date: needs a date such as 2026-11-20"),
        (
            DATED,
            ("run_date=2026-13-01",),
            "--set run_date=2026-13-01: a value that can't be read: month must be in",
        ),
        (DATED, ("run_date='2026-02-30'",), "--set: run_date: day"),
        (
            DATED + "run_date: 2026-13-01\n",
            (),
            "job.yaml: a value that can't be read: month must be in 1..12",
        ),
    ],
)
def test_wrong_dates_are_named(tmp_path: Path, text: str, overrides: tuple[str, ...], message: str) -> None:
    assert message in refuse(tmp_path, text, *overrides)
