"""A night whose table is late: nobody's mistake, so schedulers try again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError, NotThereError, TemporaryError
from pipeline.rerank import main
from pipeline.reranking import dry_run, flow
from pipeline.reranking.config import RerankConfig
from tests.reranking.jobs import config

TODAY = "2026-11-20"


def night(table: Path, **sections: Any) -> RerankConfig:
    """Of a table that lies in a folder of its date."""
    path = {"path": f"{table.parent}/{{run_date}}"}
    given = {"run_date": TODAY, **sections, "input": path | sections.pop("input", {})}
    return config(table, "out-{run_date}", **given)


def test_a_table_of_a_date_that_is_not_there_is_late(table: Path) -> None:
    with pytest.raises(TemporaryError, match=rf"/{TODAY}: no such file or directory. It is not there yet"):
        flow.run(night(table))
    (table.parent / TODAY).mkdir()
    (table.parent / TODAY / "_SUCCESS").touch()
    for look in (flow.run, dry_run.describe):
        with pytest.raises(TemporaryError, match=r"such as .*/_SUCCESS .*It is not there yet") as late:
            look(night(table))
        assert "input.format" not in str(late.value)
    assert not (table.parent / f"out-{TODAY}").exists()
    shutil.copytree(table, table.parent / TODAY, dirs_exist_ok=True)
    assert flow.run(night(table)).pairs == 32


def test_a_finished_run_whose_table_is_gone_is_not_late(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = table.rename(table.parent / TODAY)
    job = table.parent / "job.yaml"
    job.write_text(json.dumps(night(table).model_dump(mode="json", exclude_unset=True)))
    assert main(["--config", str(job)]) == 0
    there.rename(table.parent / "kept")
    for asked in ([], ["--check-bytes"]):
        capsys.readouterr()
        assert main(["--config", str(job), *asked]) == 2
        assert f"{table.parent}/out-{TODAY} is finished, so its input was there" in capsys.readouterr().err
    (table.parent / f"out-{TODAY}/_SUCCESS").unlink()
    assert main(["--config", str(job)]) == 75


def test_a_table_without_a_date_that_is_not_there_is_a_mistake(table: Path) -> None:
    with pytest.raises(NotThereError, match=r"nowhere: no such file or directory$"):
        flow.run(night(table, input={"path": f"{table.parent}/nowhere"}))


def test_a_table_of_another_format_is_a_mistake_on_any_date(table: Path) -> None:
    (table.parent / TODAY).mkdir()
    (table.parent / TODAY / "part-0.csv").write_text("query_id,query,passage_id,passage\n")
    with pytest.raises(InputError, match=r"part-0.csv .ends in none of .parquet.*input.format"):
        flow.run(night(table))


@pytest.mark.parametrize("field", ["queries", "passages"])
def test_texts_of_a_date_may_be_late_too(table: Path, field: str) -> None:
    run = table.parent / f"{TODAY}.trec"
    run.write_text("q1 Q0 p1 1 2.0 bm25\n")
    given = {"queries": str(run), "passages": str(run)} | {field: f"{table.parent}/{{run_date}}/x.tsv"}
    with pytest.raises(TemporaryError, match=rf"{TODAY}/x.tsv: no such file. It is not there yet"):
        flow.run(night(table, input={"path": str(run), "format": "trec", **given}))


def test_a_half_written_table_is_not_read_before_its_success_file_is_there(table: Path) -> None:
    second = (table / "part-1.parquet").rename(table.parent / "part-1.parquet")
    guarded = config(table, input={"path": str(table), "success_file": "_SUCCESS"})
    with pytest.raises(TemporaryError, match=r"in: _SUCCESS is not there yet"):
        flow.run(guarded)
    assert not (table.parent / "out").exists()
    second.rename(table / "part-1.parquet")
    (table / "_SUCCESS").touch()
    summary = flow.run(guarded)
    assert (summary.pairs, summary.files_skipped) == (32, 0)
    # It decides when a job may begin, and nothing of its output.
    assert flow.run(config(table)).finished_before


@pytest.mark.parametrize("given", [{"success_file": "a/b"}, {"success_file": "_S", "format": "delta"}])
def test_a_success_file_is_a_name_beside_files(table: Path, given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"success_file"):
        config(table, input={"path": "in", **given})
