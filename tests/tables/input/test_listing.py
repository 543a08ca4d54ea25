"""What of a folder is read, left out by rule, or refused."""

import gzip
import os
import re
from pathlib import Path

import fsspec
import pytest

from pipeline.errors import InputError, NotThereError, TemporaryError
from pipeline.tables.input.files import open_input
from pipeline.tables.input.limits import DEFAULT_LIMITS
from pipeline.tables.input.listing import NoFilesError, but_markers, find_files, log_skipped

MARKER = "a name that begins with _ or ., or ends in .crc, is a marker's"


def is_like(first: bytes) -> bool:
    return first.startswith(b"PAR1")


def names(url: str, *suffixes: str) -> list[str]:
    return [file.url.rpartition("/")[2] for file in find_files(url, suffixes or (".parquet",), is_like)[0]]


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
    assert names(f"{table}/[as]*") == ["a.parquet", "c.parquet"]


def test_a_glob_means_no_markers_and_no_half_written_files_unless_it_says_so(table: Path) -> None:
    for name in (".a.parquet", ".a.parquet.crc", "_committed_1", "c.parquet.tmp"):
        (table / name).write_text("x")
    assert names(f"{table}/*") == ["a.parquet", "b.parquet", "notes.txt", "c.parquet"]
    assert names(f"{table}/*.parquet") == ["a.parquet", "b.parquet"]
    assert names(f"{table}/.*.parquet") == [".a.parquet", ".hidden.parquet"]
    assert names(f"{table}/_committed*") == ["_committed_1"]
    assert names(f"{table}/.a.parquet") == [".a.parquet"]
    with pytest.raises(NotThereError, match="no files here"):
        names(f"{table}/?committed_1")


def test_what_is_left_out_has_a_reason(table: Path) -> None:
    _, skipped = find_files(str(table), (".parquet",), is_like)
    reasons = {name.rpartition("/")[2]: reason for name, reason in skipped.items()}
    assert reasons["empty.parquet"] == "empty"
    assert reasons["notes.txt"] == "ends in none of .parquet"
    assert reasons["d.parquet"] == reasons["_SUCCESS"] == MARKER


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
        find_files(url, (".csv",), is_like)
    if "*" not in url and url != "sub":
        with pytest.raises(InputError, match="no such file|nosuch"), open_input(url, DEFAULT_LIMITS):
            pass


def test_what_is_no_file_is_told_and_never_opened(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("x")
    os.mkfifo(tmp_path / "b.parquet")
    files, skipped = find_files(str(tmp_path), (".parquet",), is_like)
    assert [file.url for file in files] == [f"{tmp_path}/a.parquet"]
    assert skipped == {f"{tmp_path}/b.parquet": "is no file"}
    with pytest.raises(InputError, match=r"such as .*b.parquet \(is no file\)"):
        find_files(f"{tmp_path}/b.parquet", (".parquet",), is_like)


@pytest.mark.parametrize("ending", [".lz4", ".snappy", ".Z", ".zip", ".br", ".7z", ".zstd"])
def test_compressions_that_are_not_read_are_refused_by_name(tmp_path: Path, ending: str) -> None:
    (tmp_path / "part-0.json").write_text("{}")
    packed = tmp_path / f"part-1.json{ending}"
    packed.write_text("x")
    message = f"part-1.json{ending}: files compressed as {ending.lower()} are not read"
    with pytest.raises(InputError, match=message):
        find_files(str(tmp_path), (".json",), is_like)
    with pytest.raises(InputError, match=message), open_input(str(packed), DEFAULT_LIMITS):
        pass


def test_the_log_names_what_is_left_out(caplog: pytest.LogCaptureFixture, table: Path) -> None:
    log_skipped(find_files(str(table), (".parquet",), is_like)[1], of="queries")
    told = "\n".join(record.message for record in caplog.records)
    assert "files left out of=queries files=2" in told
    assert f"file={table}/notes.txt reason='ends in none of .parquet'" in told
    assert f"file={table}/empty.parquet reason=empty" in told
    assert "_SUCCESS" not in told


def test_markers_alone_are_no_files_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, **{"a.parquet": "x", "_SUCCESS": "", ".a.parquet.crc": "x"})
    skipped = find_files(str(tmp_path), (".parquet",), is_like)[1]
    assert sorted(map(os.path.basename, skipped)) == [".a.parquet.crc", "_SUCCESS"]
    assert but_markers(skipped) == {}
    log_skipped(skipped)
    assert caplog.records == []


@pytest.mark.parametrize("name", ["_SUCCESS", "a.parquet.tmp", "a.parquet"])
def test_a_directory_into_which_nothing_is_written_yet_has_nothing_there(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(NotThereError, match=rf"no files here but 1 left out, such as .*{name}") as caught:
        find_files(str(tmp_path), (".parquet",), is_like)
    assert caught.value.place == str(tmp_path)
    put(tmp_path, **{"b.csv": "query_id"})
    with pytest.raises(NoFilesError, match=r"but 2 left out, such as .*") as other:
        find_files(str(tmp_path), (".parquet",), is_like)
    assert other.value.left_out == f"{tmp_path}/b.csv"


def test_a_table_is_whole_when_its_success_file_is_there(tmp_path: Path) -> None:
    put(tmp_path / "in", **{"a.parquet": "x"})
    for url in (f"{tmp_path}/in/", f"file://{tmp_path}/in"):
        with pytest.raises(TemporaryError, match=rf"{url}: DONE is not there yet.*success_file"):
            find_files(url, (".parquet",), is_like, "DONE")
    nowhere = f"{tmp_path}/nowhere"
    with pytest.raises(TemporaryError, match=rf"{nowhere}: the folder is not there \(yet\).*or correct"):
        find_files(nowhere, (".parquet",), is_like, "DONE")
    put(tmp_path / "in", DONE="PAR1, and no part of the table")
    files, skipped = find_files(f"{tmp_path}/in/", (".parquet",), is_like, "DONE")
    assert ([file.url for file in files], skipped) == ([f"{tmp_path}/in/a.parquet"], {})
    for url in (f"{tmp_path}/in/*.parquet", f"{tmp_path}/in/a.parquet"):
        with pytest.raises(InputError, match=r"is no directory, in which DONE could stand; leave"):
            find_files(url, (".parquet",), is_like, "DONE")


@pytest.mark.parametrize("below", ["/2026-11-20/", "/part-0.parquet", "/*/part-*.parquet", ""])
def test_a_bucket_that_is_not_there_is_no_late_table(bucket: str, below: str) -> None:
    told = f"{bucket}-typo{below}: there is no bucket {bucket[5:]}-typo: correct the path, or make the bucket"
    success_files = [None] if "." in below else [None, "_SUCCESS"]
    for success_file in success_files:
        with pytest.raises(InputError, match=f"^{re.escape(told)}$") as error:
            find_files(f"{bucket}-typo{below}", (".parquet",), is_like, success_file)
        assert type(error.value) is InputError
    with pytest.raises(NotThereError):
        find_files(f"{bucket}{below or '/none'}", (".parquet",), is_like, None)


def test_a_success_file_on_s3(bucket: str) -> None:
    fs, root = fsspec.core.url_to_fs(f"{bucket}/success_file")
    fs.pipe_file(f"{root}/a.parquet", b"x")
    for folder, what in (
        ("success_file/", "_SUCCESS is not there yet"),
        ("nowhere", "the folder is not there"),
    ):
        with pytest.raises(TemporaryError, match=f"{bucket}/{folder}: {what}"):
            find_files(f"{bucket}/{folder}", (".parquet",), is_like, "_SUCCESS")
    fs.pipe_file(f"{root}/b.parquet", b"x")
    fs.pipe_file(f"{root}/_SUCCESS", b"")
    files, skipped = find_files(f"{bucket}/success_file/", (".parquet",), is_like, "_SUCCESS")
    assert ([file.url for file in files], skipped) == ([f"s3://{root}/{name}.parquet" for name in "ab"], {})
    with pytest.raises(InputError, match=r"is no directory, in which _SUCCESS could stand"):
        find_files(f"{bucket}/success_file/a.parquet", (".parquet",), is_like, "_SUCCESS")


def put(folder: Path, **contents: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_text(content)
    return folder


def test_parts_without_an_ending_are_read(tmp_path: Path) -> None:
    """As Hive and Hadoop name them, and what is like a part though no number says so."""
    put(tmp_path, **{"a.parquet": "x", "part-00002": "PAR1", "000000_0": "x", "data": "PAR1", "README": "hi"})
    (tmp_path / "part-00003.gz").write_bytes(gzip.compress(b"PAR1"))
    assert names(str(tmp_path)) == ["000000_0", "a.parquet", "data", "part-00002", "part-00003.gz"]
    _, skipped = find_files(str(tmp_path), (".parquet",), is_like)
    assert skipped == {f"{tmp_path}/README": "has no ending, and does not look like .parquet"}


@pytest.mark.parametrize("name", ["a.parquet.bak", "b.data", "c.parq", "d.csv.gz"])
def test_rows_under_another_ending_are_refused(tmp_path: Path, name: str) -> None:
    content = b"PAR1..."
    put(tmp_path, **{"a.parquet": "x"})
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(
        InputError, match=rf"{name}: looks like .parquet, and ends in none of .parquet. Rename"
    ):
        find_files(str(tmp_path), (".parquet",), is_like)
    assert names(f"{tmp_path}/*.parquet") == ["a.parquet"]


def test_what_stands_beside_a_part_is_left_out_where_the_part_is_read(tmp_path: Path) -> None:
    put(tmp_path, **{"a.parquet": "x", "a.parquet.md5": "0"})
    assert names(str(tmp_path)) == ["a.parquet"]
    put(tmp_path, **{"b.parquet.gpg": "secret"})
    with pytest.raises(InputError, match=r"b.parquet.gpg: looks like a part of the table, and ends in none"):
        find_files(str(tmp_path), (".parquet",), is_like)


def test_temporary_files_and_checksums_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, **{"a.parquet": "x", "b.parquet.tmp": "PAR1", "c.parquet~": "PAR1", "a.parquet.crc": "crc"})
    assert names(str(tmp_path)) == ["a.parquet"]
    _, skipped = find_files(str(tmp_path), (".parquet",), is_like)
    assert sorted(skipped.values()) == [MARKER, *["a temporary file's name"] * 2]


@pytest.mark.parametrize("name", ["part-00000.snappy", "000000_0.deflate"])
def test_parts_in_a_compression_that_is_not_read_are_refused(tmp_path: Path, name: str) -> None:
    put(tmp_path, **{"a.parquet": "x", name: "x", "images.zip": "x"})
    with pytest.raises(InputError, match=f"{name}: files compressed as"):
        find_files(str(tmp_path), (".parquet",), is_like)


def test_a_markers_folder_need_not_be_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, **{"a.parquet": "x"})
    put(tmp_path / "_tmp", **{"b.parquet": "x"})
    scandir = os.scandir

    def refused(path: str) -> object:
        if str(path).endswith(("_tmp", "closed")):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert names(str(tmp_path)) == ["a.parquet"]
    put(tmp_path / "closed", **{"c.parquet": "x"})
    with pytest.raises(InputError, match="closed: can't be read: Permission denied"):
        find_files(str(tmp_path), (".parquet",), is_like)


def test_a_path_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/k=\xff"
    os.mkdir(folder)  # noqa: PTH102  # pathlib has no bytes
    Path(os.fsdecode(folder + b"/a.parquet")).write_text("x")
    with pytest.raises(InputError, match=r"k=.udcff/a.parquet': its path is no UTF-8 text; rename it"):
        find_files(str(tmp_path), (".parquet",), is_like)
    put(tmp_path / "b" / "k=%FF", **{"b.parquet": "x"})
    with pytest.raises(InputError, match="k=%FF: names a column whose value is no UTF-8 text"):
        find_files(str(tmp_path / "b"), (".parquet",), is_like)
