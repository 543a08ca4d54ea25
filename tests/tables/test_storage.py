from pathlib import Path

import fsspec
import pytest

from pipeline.errors import InputError, OutputError
from pipeline.tables.storage import Directory, find_files, open_input


def names(url: str, *suffixes: str) -> list[str]:
    return [file.url.rpartition("/")[2] for file in find_files(url, suffixes or (".parquet",))[0]]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for name in (
        "b.parquet",
        "a.parquet",
        "sub/c.parquet",
        "_SUCCESS",
        ".hidden.parquet",
        "_tmp/d.parquet",
        "notes.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    (tmp_path / "empty.parquet").touch()
    return tmp_path


def test_directories_files_and_globs(table: Path) -> None:
    assert names(str(table)) == ["a.parquet", "b.parquet", "c.parquet"]
    assert names(f"file://{table}") == ["a.parquet", "b.parquet", "c.parquet"]
    assert names(f"{table}/b.parquet") == ["b.parquet"]
    assert names(f"{table}/notes.txt") == ["notes.txt"]
    assert names(f"{table}/[ab]*.parquet") == ["a.parquet", "b.parquet"]


def test_what_is_left_out_has_a_reason(table: Path) -> None:
    _, left_out = find_files(str(table), (".parquet",))
    reasons = {name.rpartition("/")[2]: reason for name, reason in left_out.items()}
    assert reasons["empty.parquet"] == "empty"
    assert reasons["notes.txt"] == "ends in none of .parquet"
    assert reasons["d.parquet"] == reasons["_SUCCESS"] == "a name that begins with _ or . is a marker's"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nowhere/", "nowhere/: no such file or directory"),
        ("nowhere/*.parquet", "no files here"),
        ("nosuch://bucket/table", "nosuch"),
        ("sub", "no files here but 1 left out, such as .*c.parquet .ends in none of .csv"),
    ],
)
def test_nothing_to_read_is_an_error(
    table: Path, monkeypatch: pytest.MonkeyPatch, url: str, message: str
) -> None:
    monkeypatch.chdir(table)
    with pytest.raises(InputError, match=message):
        find_files(url, (".csv",))
    if "*" not in url and url != "sub":
        with pytest.raises(InputError, match="no such file|nosuch"), open_input(url):
            pass


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    directory = Directory(str(tmp_path / "new/deep"))
    assert directory.read("a/b") is None
    directory.write("a/b", b"one")
    directory.write("a/b", b"two")
    assert directory.read("a/b") == b"two"

    def break_off() -> None:
        with directory.writing("a/b") as stream:
            stream.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert directory.read("a/b") == b"two"
    assert directory.names("a") == {"b"}
    assert directory.names("nowhere") == set()


def test_object_stores_put_at_once() -> None:
    directory = Directory("memory://bucket/out")
    directory.write("run/x", b"data")
    assert fsspec.filesystem("memory").cat("/bucket/out/run/x") == b"data"
    assert directory.names("run") == {"x"}


def test_a_file_in_the_place_of_the_output_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(OutputError, match="out/a: can't be written"):
        Directory(str(tmp_path / "out")).write("a", b"x")


def test_object_stores_keep_the_old_content_when_a_write_breaks_off() -> None:
    directory = Directory("memory://bucket/half")
    directory.write("x", b"whole")

    def break_off() -> None:
        with directory.writing("x") as stream:
            stream.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert directory.read("x") == b"whole"


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/_shard-000000.parquet.0123.tmp").write_text("half")
    (tmp_path / "run/shard-000000.parquet").write_text("whole")
    Directory(str(tmp_path)).remove_leftovers("run")
    assert Directory(str(tmp_path)).names("run") == {"shard-000000.parquet"}
