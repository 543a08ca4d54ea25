from pathlib import Path

import pytest

from pipeline.errors import OutputError, TemporaryError
from pipeline.job_record import JobRecord, read_record, write_record
from pipeline.output import (
    check_output,
    check_written,
    finish,
    is_complete,
    is_intact,
    open_directory,
    read_summary,
)
from pipeline.reporting.summary import Summary
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.output.manifest import Manifest, volumes
from tests.reporting.reports import summary

RESULTS = ("run", "_manifest/done")
RECORD = JobRecord(
    format_version=FORMAT_VERSION,
    command="rerank",
    config={"scorer.model": "m", "output.top_k": 10},
    models={"scorer": "sha256:1"},
    files={"a": "3 bytes", "b": "4 bytes"},
    shards=2,
    pairs=10,
)


def begin(output: Directory, record: JobRecord = RECORD, *, resumes: bool = True) -> JobRecord | None:
    before = check_output(output, record, RESULTS, resumes=resumes)
    write_record(output, record)
    return before


@pytest.fixture
def output(tmp_path: Path) -> Directory:
    return Directory(str(tmp_path / "out"))


def test_the_same_job_goes_on(output: Directory) -> None:
    assert begin(output) is None
    assert begin(output) == RECORD == read_record(output)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"scorer.model": "m", "output.top_k": 5}}, "output.top_k: was 10, is 5"),
        ({"config": {"scorer.model": "n", "output.top_k": 10}}, 'scorer.model: was "m", is "n"'),
        (
            {"models": {"scorer": "sha256:2"}},
            "scorer: the model's weights or files: were sha256:1, are sha256:2",
        ),
        (
            {"models": {"levels.0.scorer": "sha256:1"}},
            "scorer: the model's weights or files: were sha256:1, are none",
        ),
        ({"files": {"a": "3 bytes"}}, "b: was 4 bytes, is gone"),
        ({"files": {**RECORD.files, "c": "1 bytes"}}, "c: is new"),
        ({"files": {**RECORD.files, "b": "9 bytes"}}, "b: was 4 bytes, is 9 bytes"),
        ({"command": "prepare"}, "the command: was rerank, is prepare"),
    ],
)
def test_another_job_is_refused_with_what_differs(
    output: Directory, change: dict[str, object], message: str
) -> None:
    begin(output)
    output.write("run/shard-000000.parquet", b"data")
    with pytest.raises(OutputError, match="holds the output of another job") as caught:
        begin(output, RECORD.model_copy(update=change))
    assert message in str(caught.value)
    taken = (
        f"Take another output.path (with `reuse: {output.url}`, once it is finished, for what still holds), "
    )
    assert (taken in str(caught.value)) == ("command" not in change)


def test_many_differences_are_counted(output: Directory) -> None:
    begin(output)
    output.write("run/shard-000000.parquet", b"data")
    files = {f"new-{number:02}": "1 bytes" for number in range(11)} | RECORD.files
    with pytest.raises(OutputError, match=r"new-09: is new\n  and 1 more\n"):
        begin(output, RECORD.model_copy(update={"files": files}))


def test_files_of_unknown_origin_are_left_alone(output: Directory) -> None:
    output.write("thesis.tex", b"years of work")
    with pytest.raises(OutputError, match=r"not empty, and no output of this program .holds thesis.tex"):
        begin(output)


def test_the_folder_of_all_outputs_is_not_to_be_removed(output: Directory) -> None:
    """As of a job whose output.path lacks {run_date}."""
    begin(Directory(f"{output.url}/2026-11-19"))
    output.write("2026-11-20/notes.txt", b"")
    output.write("zzz.txt", b"")
    with pytest.raises(OutputError, match="holds other outputs, such as 2026-11-19; take another") as caught:
        begin(output)
    assert "Is {run_date} missing from the path?" in str(caught.value)
    assert "remove" not in str(caught.value)


def test_a_start_that_was_killed_before_its_record_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "_manifest").mkdir()
    begin(Directory(str(tmp_path)))


def test_an_attempt_that_got_nowhere_gives_way(output: Directory) -> None:
    begin(output)
    other = RECORD.model_copy(update={"models": {"scorer": "sha256:2"}})
    assert begin(output, other) is None
    assert check_output(output, other, RESULTS, resumes=True) == other
    output.write("run/shard-000000.parquet", b"data")
    with pytest.raises(OutputError, match="holds the output of another job"):
        begin(output)


def test_what_starts_afresh_anyway_asks_for_no_more_than_its_own_command(output: Directory) -> None:
    begin(output, resumes=False)
    output.write("run/part.parquet", b"half")
    other = RECORD.model_copy(update={"files": {}})
    assert begin(output, other, resumes=False) is None
    with pytest.raises(OutputError, match="the command: was rerank, is prepare"):
        begin(output, RECORD.model_copy(update={"command": "prepare"}), resumes=False)
    finish(output, summary(), RESULTS, complete=True)
    with pytest.raises(OutputError, match="holds the output of another job"):
        begin(output, RECORD, resumes=False)
    assert begin(output, other, resumes=False) == other


@pytest.mark.parametrize(
    ("written", "age"),
    [
        (b'{"format_version": 1, "command": "rerank", "config": {}, "models": {}, "files": {}}', "an older"),
        (RECORD.model_copy(update={"format_version": 99}).model_dump_json().encode(), "a newer"),
        (b'{"format_version": 3, "renamed": {}}', "a newer"),
    ],
)
def test_another_format_is_refused_in_words(output: Directory, written: bytes, age: str) -> None:
    output.write("_manifest/plan.json", written)
    with pytest.raises(OutputError, match=f"was written by {age} version of this program"):
        begin(output)


def test_a_prepared_table_of_an_older_version_is_refused_in_words(output: Directory) -> None:
    output.write("_manifest/prepare.json", b"{}")
    with pytest.raises(OutputError, match="was written by an older version of this program"):
        begin(output)


def test_success_comes_last_and_only_where_nothing_is_missing(output: Directory) -> None:
    begin(output)
    output.write("run/_shard-000000.parquet.0a1b.tmp", b"half")
    finish(output, summary(), RESULTS, complete=False)
    assert not is_complete(output)
    assert output.names("run") == set()
    finish(output, summary(), RESULTS, complete=True)
    assert is_complete(output)
    assert read_summary(output, Summary) == summary()
    for damaged in (b"", b"{}", b"\xff"):
        output.write("summary.json", damaged)
        assert read_summary(output, Summary) is None


def test_what_vanished_while_the_job_ran_leaves_no_success(output: Directory) -> None:
    begin(output)
    stamp = output.write("run/a.parquet", b"data")
    manifest = Manifest(folders=volumes({"run/a.parquet": stamp}, ["run"]), files={"run/a.parquet": stamp})
    output.remove_file("run/a.parquet")
    with pytest.raises(TemporaryError, match=r"out/run/a.parquet: is missing; start again"):
        finish(output, summary(), [], complete=True, manifest=manifest)
    assert not is_complete(output)
    output.write("run/a.parquet", b"data")
    finish(output, summary(), [], complete=True, manifest=manifest)
    assert is_intact(output, check_bytes=True)


def test_an_output_that_was_removed_is_not_finished(output: Directory) -> None:
    begin(output)
    output.remove()
    with pytest.raises(OutputError, match="the output was removed while the job ran"):
        finish(output, summary(), [], complete=True)
    assert output.names() == set()


def test_what_was_written_elsewhere_is_told(output: Directory) -> None:
    check_written(output, ["a", "b"], {"a", "b", "c"}, "shards")
    with pytest.raises(OutputError, match=r"1 of 2 shards were written, but not here \(b\)"):
        check_written(output, ["a", "b"], {"a"}, "shards")


def test_an_output_inside_of_the_input_is_refused(tmp_path: Path) -> None:
    for inside in (tmp_path / "in/out", tmp_path / "in"):
        with pytest.raises(OutputError, match=r"lies inside of the input .*/in/; take another output.path"):
            open_directory(str(inside), [f"{tmp_path}/in/"])
    assert open_directory(str(tmp_path / "in-2"), [f"{tmp_path}/in/"]).url == str(tmp_path / "in-2")


def test_an_output_behind_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    for place in ("link", "link/out"):
        with pytest.raises(OutputError, match=r"/link: a symbolic link to what is not there \(nowhere\)"):
            open_directory(f"{tmp_path}/{place}", [])
    (tmp_path / "nowhere").mkdir()
    assert open_directory(f"{tmp_path}/link/out", []).url == f"{tmp_path}/link/out"


def test_an_output_in_memory_is_refused() -> None:
    with pytest.raises(OutputError, match=r"memory://.*/out: ends with the process that writes it"):
        open_directory("memory://out", [])


def test_an_output_inside_of_another_is_refused(tmp_path: Path) -> None:
    write_record(Directory(f"{tmp_path}/run/out"), RECORD)
    with pytest.raises(OutputError, match=r"/run/out/run/mine: lies inside of the output .*/run/out;"):
        open_directory(f"{tmp_path}/run/out/run/mine", [])
    assert open_directory(f"{tmp_path}/run/out", []).url == f"{tmp_path}/run/out"
    assert open_directory(f"{tmp_path}/run/other", []).url == f"{tmp_path}/run/other"


def test_another_commands_output_is_refused_whatever_it_holds(output: Directory) -> None:
    prepare = RECORD.model_copy(update={"command": "prepare"})
    for mine, other in ((RECORD, prepare), (prepare, RECORD)):
        write_record(output, mine)
        for resumes in (True, False):
            with pytest.raises(
                OutputError, match=f"\n  the command: was {mine.command}, is {other.command}\nTake another"
            ):
                check_output(output, other, ["nothing-here"], resumes=resumes)


def test_a_damaged_record_is_named(output: Directory) -> None:
    write_record(output, RECORD)
    written = output.read("_manifest/plan.json") or b""
    for damaged in (b"", written[:-9], b"{}", b"[" * 10**6, written.replace(b'"pairs": 10', b'"pairs": 11')):
        output.write("_manifest/plan.json", damaged)
        with pytest.raises(OutputError, match=r"_manifest/plan.json: is damaged.*; take another output.path"):
            read_record(output)
