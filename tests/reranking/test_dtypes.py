"""`dtype: auto` of a job: settled once, in the plan, and kept by whoever goes on."""

from pathlib import Path
from typing import Any

import pytest

from pipeline import status
from pipeline.errors import InputError, ModelError
from pipeline.job_record import read_record
from pipeline.reranking import dry_run, flow
from pipeline.reranking.executors import here
from pipeline.scoring import dtype
from pipeline.tables.output.directory import Directory
from tests.conftest import TINY
from tests.reranking.jobs import config, data_of

AUTO = {"dtype": "auto"}
BFLOAT16 = {"dtype": "bfloat16"}


def play(monkeypatch: pytest.MonkeyPatch, *, bfloat16: bool) -> None:
    """A chip."""
    monkeypatch.setattr(dtype, "has_bfloat16", lambda _: bfloat16)


def recorded(table: Path, out: str = "out") -> dict[str, Any]:
    record = read_record(Directory(str(table.parent / out)))
    assert record is not None
    return record.config


def test_a_job_is_the_one_that_names_what_auto_became(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, bfloat16=True)
    summary = flow.run(config(table, scorer=AUTO))
    named = flow.run(config(table, "named", scorer=BFLOAT16))
    assert recorded(table) == recorded(table, "named")
    assert data_of(table.parent / "out") == data_of(table.parent / "named")
    assert summary.config_fingerprint == named.config_fingerprint
    assert summary.dtype == "bfloat16"
    assert f"scored by {TINY} in bfloat16 in " in summary.as_text()
    report = (table.parent / "out/report.html").read_text()
    assert "dtype: bfloat16" in report
    assert "<dt>dtype</dt><dd>bfloat16</dd>" in report
    assert flow.run(config(table, scorer=BFLOAT16)).finished_before is not None


def test_a_start_that_goes_on_asks_nobody(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    play(monkeypatch, bfloat16=True)
    flow.run(config(table, scorer=AUTO))
    undisturbed = data_of(table.parent / "out")
    for name in ("_SUCCESS", "_manifest/done/shard-000001.json"):
        (table.parent / "out" / name).unlink()
    monkeypatch.setattr(here, "fastest_dtype", lambda _: pytest.fail("asked again"))
    assert status.main(["--output", str(table.parent / "out")]) == 0
    assert "dtype    bfloat16 (scorer)" in capsys.readouterr().out
    with monkeypatch.context() as another_machine:
        play(another_machine, bfloat16=False)
        with pytest.raises(ModelError, match=r"^scorer\.dtype auto: became bfloat16 .* node \S+ does not"):
            flow.run(config(table, scorer=AUTO))
    again = flow.run(config(table, scorer=AUTO))
    assert (again.shards_done_before, again.dtype) == (3, "bfloat16")
    assert data_of(table.parent / "out") == undisturbed


def test_a_dtype_that_is_named_is_computed_on_any_chip(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, bfloat16=False)
    assert flow.run(config(table, scorer=BFLOAT16)).dtype == "bfloat16"


def test_each_level_has_its_own(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, bfloat16=True)
    tiny = {"model": TINY, "device": "cpu"}
    levels = [{"scorer": tiny | AUTO, "keep": 3}, {"scorer": tiny, "keep": 2}]
    summary = flow.run(config(table, levels=levels))
    assert summary.dtype == "bfloat16 > float32"
    assert recorded(table)["levels.0.scorer.dtype"] == "bfloat16"
    with monkeypatch.context() as another_machine:
        play(another_machine, bfloat16=False)
        (table.parent / "out/_SUCCESS").unlink()
        (table.parent / "out/_manifest/done/shard-000001.json").unlink()
        with pytest.raises(ModelError, match=r"^levels\.0\.scorer\.dtype auto: became bfloat16"):
            flow.run(config(table, levels=levels))


def test_mistakes_are_told_before_a_machine_is_asked(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here, "fastest_dtypes", lambda _: pytest.fail("asked"))
    with pytest.raises(ModelError, match="no such directory"):
        flow.run(config(table, scorer=AUTO | {"model": "./nowhere"}))
    with pytest.raises(InputError, match="no column 'nothing'"):
        flow.run(config(table, scorer=AUTO, input={"path": str(table), "columns": {"query": "nothing"}}))


def test_a_dry_run_asks_no_actor(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, bfloat16=True)
    on_ray: dict[str, Any] = {"executor": "ray_data", "scorer": AUTO}
    assert f"model    {TINY} in {TINY}, bfloat16" in dry_run.describe(config(table, scorer=AUTO))
    assert "dtype auto, for the actors' machines to say" in dry_run.describe(config(table, **on_ray))
    flow.run(config(table, scorer=AUTO))
    assert f"{TINY}, bfloat16" in dry_run.describe(config(table, **on_ray))
    previous = str(table.parent / "out")
    assert "dtype auto, for" in dry_run.describe(config(table, "next", reuse=previous, **on_ray))
    play(monkeypatch, bfloat16=False)
    with pytest.raises(InputError, match=r'scorer\.dtype was "bfloat16", is "float32"'):
        flow.run(config(table, "next", reuse=previous, scorer=AUTO))
