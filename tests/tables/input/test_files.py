import gzip
import os
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.tables.input.files import (
    check_unchanged,
    find_file,
    find_files,
    log_skipped,
    open_input,
    open_text,
)


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
    assert names(f"{table}/[as]*") == ["a.parquet", "c.parquet"]


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


def test_links_are_what_they_point_to(tmp_path: Path) -> None:
    """As in a hub's snapshot: a folder of links to blobs, and a link to a folder."""
    for number in range(3):
        (tmp_path / f"blob{number}").write_bytes(b"x" * (number + 1))
    folder, other = tmp_path / "in", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    (folder / "a.parquet").symlink_to("../blob0")
    (folder / "b.parquet").symlink_to(tmp_path / "blob1")
    (other / "c.parquet").symlink_to(tmp_path / "blob2")
    (folder / "sub").symlink_to(other)
    (tmp_path / "cur").symlink_to(folder)
    for url in (str(folder), str(tmp_path / "cur"), f"{folder}/*", f"{folder}/**"):
        files, skipped = find_files(url, (".parquet",))
        assert [(file.url.rpartition("/")[2], file.size) for file in files] == [
            ("a.parquet", 1), ("b.parquet", 2), ("c.parquet", 3),
        ]  # fmt: skip
        assert skipped == {}
        assert [find_file(file.url) for file in files] == files
    assert names(f"{folder}/*/c.parquet") == names(f"{folder}/sub/c.parquet") == ["c.parquet"]


def test_a_link_is_changed_when_its_target_is(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"x")
    (tmp_path / "a.parquet").symlink_to("blob")
    [file], _ = find_files(str(tmp_path), (".parquet",))
    check_unchanged(file.url, file.identity)
    (tmp_path / "blob").write_bytes(b"xy")
    with pytest.raises(InputError, match=r"a.parquet: changed while the job ran"):
        check_unchanged(file.url, file.identity)


def test_links_that_lead_nowhere_or_in_a_circle_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "one").mkdir(parents=True)
    (folder / "two").mkdir()
    (folder / "a.parquet").write_text("x")
    (folder / ".hidden").symlink_to("nowhere")
    assert names(str(folder)) == ["a.parquet"]
    (folder / "b.parquet").symlink_to("nowhere")
    for url in (str(folder), f"{folder}/*", f"{folder}/b.parquet"):
        with pytest.raises(InputError, match=r"b.parquet: a symbolic link to what is not there \(nowhere\)"):
            find_files(url, (".parquet",))
    (folder / "b.parquet").unlink()
    for links in ({"up": ".."}, {"itself": "itself"}, {"one/to": "../two", "two/back": "../one"}):
        for link, target in links.items():
            (folder / link).symlink_to(target)
        with pytest.raises(InputError, match=r"/\w+: a symbolic link (that leads in a circle|to what)"):
            find_files(str(folder), (".parquet",))
        for link in links:
            (folder / link).unlink()


def test_what_is_no_file_is_told_and_never_opened(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("x")
    os.mkfifo(tmp_path / "b.parquet")
    files, skipped = find_files(str(tmp_path), (".parquet",))
    assert [file.url for file in files] == [f"{tmp_path}/a.parquet"]
    assert skipped == {f"{tmp_path}/b.parquet": "is no file"}
    with pytest.raises(InputError, match=r"such as .*b.parquet \(is no file\)"):
        find_files(f"{tmp_path}/b.parquet", (".parquet",))


@pytest.mark.parametrize("ending", [".lz4", ".snappy", ".Z", ".zip", ".br", ".7z", ".zstd"])
def test_compressions_that_are_not_read_are_refused_by_name(tmp_path: Path, ending: str) -> None:
    (tmp_path / "part-0.json").write_text("{}")
    packed = tmp_path / f"part-1.json{ending}"
    packed.write_text("x")
    message = f"part-1.json{ending}: files compressed as {ending.lower()} are not read"
    with pytest.raises(InputError, match=message):
        find_files(str(tmp_path), (".json",))
    with pytest.raises(InputError, match=message), open_input(str(packed)):
        pass


def test_the_log_names_what_is_left_out(caplog: pytest.LogCaptureFixture, table: Path) -> None:
    log_skipped(find_files(str(table), (".parquet",))[1], of="queries")
    told = "\n".join(record.message for record in caplog.records)
    assert "files left out of=queries files=5" in told
    assert f"file={table}/notes.txt reason='ends in none of .parquet'" in told
    assert f"file={table}/empty.parquet reason=empty" in told
    assert "_SUCCESS" not in told


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a,b\n".encode("utf-16"), "looks like UTF-16; convert it: iconv -f UTF-16 -t UTF-8"),
        ("a,b\n".encode("utf-16-be"), "looks like UTF-16"),
        ("id\t熊熊熊熊熊熊\n".encode("utf-16-le"), "looks like UTF-16"),
        ("a,b\n".encode("utf-32"), "looks like UTF-32"),
        ("a,b\n".encode("utf-32-be"), "looks like UTF-32"),
        (b"a,b\rc,d\r", "end in a carriage return alone; convert the line ends"),
        (gzip.compress(b"a,b\n"), "holds gzip data, which its name does not say"),
    ],
)
def test_what_is_no_utf8_text_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    for name, content in {"t.csv": data, "t.csv.gz": gzip.compress(data)}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: .*{message}"), open_text(str(tmp_path / name)):
            pass


@pytest.mark.parametrize(
    "data", [b"", b"id,a\0b: one zero in a text of some length\n", b"a\r\n", b"a", b"a\r"]
)
def test_other_texts_are_opened(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t").write_bytes(data)
    with open_text(str(tmp_path / "t")) as stream:
        assert stream.read() == data
