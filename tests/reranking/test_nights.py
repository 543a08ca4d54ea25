"""`reuse` with {previous_run_date}, as a schedule keeps it: first, missed, unfinished and repeated nights."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError, OutputError
from pipeline.job_record import read_record, write_record
from pipeline.reporting.summary import Summary
from pipeline.reranking import dry_run, flow
from pipeline.reranking.config import RerankConfig
from pipeline.tables.output.directory import Directory
from tests.reranking.jobs import config


def job(table: Path, day: int, **sections: object) -> RerankConfig:
    reuse = f"{table.parent}/out-{{previous_run_date}}/v1"
    return config(table, "out-{run_date}/v1", reuse=reuse, run_date=f"2026-11-{day:02}", **sections)


def night(table: Path, day: int, **sections: object) -> Summary:
    return flow.run(job(table, day, **sections))


def reused_of(table: Path, day: int) -> str | None:
    """The date whose scores the night's record names."""
    record = read_record(output(table, day))
    assert record is not None
    found: str | None = record.config["reuse"]
    return found and found.removeprefix(f"{table.parent}/out-").removesuffix("/v1")


def output(table: Path, day: int) -> Directory:
    return Directory(f"{table.parent}/out-2026-11-{day:02}/v1")


def unfinish(table: Path, day: int) -> None:
    """As a driver leaves it that was killed near the end."""
    for name in ("_SUCCESS", "summary.json"):
        output(table, day).remove_file(name)


def test_each_night_takes_the_scores_of_the_latest_finished_one(table: Path) -> None:
    (table.parent / "out-2026-11-31").touch()  # a file, and no date
    first = night(table, 1)
    assert (first.reused, reused_of(table, 1)) == (0, None)
    second = night(table, 2)
    assert (second.reused, reused_of(table, 2)) == (second.pairs, "2026-11-01")
    after_a_missed_one = night(table, 4)
    assert (after_a_missed_one.reused, reused_of(table, 4)) == (second.pairs, "2026-11-02")
    unfinish(table, 4)
    night(table, 5)
    assert reused_of(table, 5) == "2026-11-02"
    # A date before all others has none before it, whatever was run meanwhile.
    shutil.rmtree(table.parent / "out-2026-11-01")
    assert night(table, 1).reused == 0
    assert f"have their score in {table.parent}/out-2026-11-05/v1" in dry_run.describe(job(table, 6))


def test_that_the_first_night_has_none_before_it_is_no_warning(
    table: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    told = "no previous run to take scores from: every pair is scored"
    dry_run.describe(job(table, 1))
    assert [record.levelname for record in caplog.records if told in record.getMessage()] == ["INFO"]
    night(table, 1)
    caplog.clear()
    dry_run.describe(job(table, 2, scorer={"max_length": 64}))
    assert [record.levelname for record in caplog.records if told in record.getMessage()] == ["WARNING"]


def test_a_reuse_that_leads_elsewhere_is_a_warning_and_told_in_plan_and_summary(
    table: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = f"{table.parent}/ouT-{{previous_run_date}}/v1"
    wrong = config(table, "out-{run_date}/v1", reuse=elsewhere, run_date="2026-11-02")
    none = f"none, since no finished run of this scorer lies at {elsewhere}"
    assert f"reuse    {none}: every pair is scored" in dry_run.describe(wrong)
    told = [
        record for record in caplog.records if "no previous run to take scores from" in record.getMessage()
    ]
    assert [record.levelname for record in told] == ["WARNING"]
    assert "it is not output.path: is it right?" in told[0].getMessage()
    summary = flow.run(wrong)
    assert f"reuse: {none}; every pair was scored" in summary.as_text()
    assert (summary.reuse, summary.previous_run) == (elsewhere, None)
    # It is told again by a start that finds the job done, and not of one that found a run.
    assert f"reuse: {none}" in flow.run(wrong).as_text()
    right = night(table, 3)
    assert "reuse: none" not in right.as_text()
    assert right.previous_run == f"{table.parent}/out-2026-11-02/v1"


def test_a_start_goes_on_with_what_the_first_one_took(table: Path) -> None:
    night(table, 1)
    unfinish(table, 1)
    night(table, 3)
    assert reused_of(table, 3) is None
    unfinish(table, 3)
    night(table, 1)  # finished only now
    night(table, 3)
    assert reused_of(table, 3) is None
    night(table, 4)
    unfinish(table, 4)
    night(table, 3)
    night(table, 4)
    assert reused_of(table, 4) == "2026-11-03"
    with pytest.raises(OutputError, match="reuse: was .*out-2026-11-03/v1.*, is .*elsewhere"):
        flow.run(job(table, 4).model_copy(update={"reuse": "elsewhere"}))


def test_the_first_night_of_another_scorer_scores_every_pair(
    table: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    night(table, 1)
    other = {"scorer": {"max_length": 64}}
    assert night(table, 2, **other).reused == 0
    assert "run not taken for its scores" in caplog.text
    assert "scorer.max_length was not given, is 64" in caplog.text
    assert "leave reuse out" not in caplog.text  # nothing is to be done
    assert "no previous run to take scores from: every pair is scored" in caplog.text
    assert night(table, 3, **other).reused > 0
    # A trial of one night does not cost the next one its scores.
    night(table, 4)
    assert reused_of(table, 4) == "2026-11-01"


def test_many_runs_that_are_passed_over_are_one_line(table: Path, caplog: pytest.LogCaptureFixture) -> None:
    for day in (1, 2, 3):
        night(table, day)
        if day > 1:
            unfinish(table, day)
    caplog.set_level("INFO")
    caplog.clear()
    dry_run.describe(job(table, 4))
    told = [record.getMessage() for record in caplog.records if "run not taken" in record.getMessage()]
    assert len(told) == 1
    assert "2026-11-03/v1: no finished run" in told[0]
    assert told[0].endswith("older_ones=1")
    caplog.clear()
    dry_run.describe(job(table, 4, scorer={"max_length": 64}))
    assert "every pair is scored" in caplog.text
    assert "there='3, none that can be taken'" in caplog.text


def test_a_previous_run_of_few_pairs_is_a_warning_before_the_work(
    table: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a night on a test table, from which the next one would score nearly all again."""
    told = "the previous run has few pairs"
    night(table, 1)
    (table.parent / "trial").mkdir()
    pq.write_table(pq.read_table(table / "part-0.parquet").slice(0, 12), table.parent / "trial/all.parquet")
    night(table, 2, input={"path": str(table.parent / "trial")})
    assert told not in caplog.text  # the run before it has more
    plan = dry_run.describe(job(table, 3))
    assert f"have their score in {table.parent}/out-2026-11-02/v1" in plan
    assert told in caplog.text
    assert "its_pairs=12 pairs=32" in caplog.text
    caplog.clear()
    older = f"{table.parent}/out-2026-11-01/v1"
    assert night(table, 3).reused < flow.run(job(table, 4).model_copy(update={"reuse": older})).reused


def test_a_run_of_another_format_is_passed_over_and_a_damaged_one_is_told(table: Path) -> None:
    night(table, 1)
    night(table, 2)
    record = read_record(output(table, 2))
    assert record is not None
    write_record(output(table, 2), record.model_copy(update={"format_version": 99}))
    night(table, 3)
    assert reused_of(table, 3) == "2026-11-01"
    for file in (table.parent / "out-2026-11-03/v1/scores").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"2026-11-03/v1/scores.*--check-bytes.*leave reuse out") as error:
        night(table, 4)
    assert "new or was removed, name an older run (--set reuse=OUTPUT), or leave reuse" in str(error.value)
    shutil.rmtree(table.parent / "out-2026-11-04", ignore_errors=True)
    older = job(table, 4).model_copy(update={"reuse": f"{table.parent}/out-2026-11-01/v1"})
    assert flow.run(older).reused > 0
    assert flow.run(job(table, 5).model_copy(update={"reuse": None})).reused == 0
