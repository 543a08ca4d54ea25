from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.tables.input.files import find_files, open_input


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
    _, skipped = find_files(str(table), (".parquet",))
    reasons = {name.rpartition("/")[2]: reason for name, reason in skipped.items()}
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
