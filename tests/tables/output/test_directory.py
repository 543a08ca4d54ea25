import errno
import tempfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import OutputError, TemporaryError
from pipeline.tables.output.directory import Directory
from tests.full_disk import files_up_to


def break_off(directory: Directory, name: str) -> None:
    """Write half a file, and fail."""

    def write() -> None:
        with directory.writing(name) as stream:
            stream.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    directory = Directory(str(tmp_path / "new/deep"))
    assert directory.read("a/b") is None
    directory.write("a/b", b"one")
    directory.write("a/b", b"two")
    assert directory.read("a/b") == b"two"
    break_off(directory, "a/b")
    assert directory.read("a/b") == b"two"
    assert directory.names("a") == {"b"}
    assert directory.names("nowhere") == set()


def test_object_stores_put_at_once() -> None:
    directory = Directory("memory://bucket/out")
    directory.write("run/x", b"data")
    assert fsspec.filesystem("memory").cat("/bucket/out/run/x") == b"data"
    assert directory.names("run") == {"x"}


def mv_over_nothing(fs: Any, path1: str, path2: str, **options: Any) -> None:
    """As HDFS over HTTP: a file that is there stays, and no error tells."""
    if not fs.exists(path2):
        MemoryFileSystem.mv(fs, path1, path2, **options)


def test_a_store_that_renames_over_nothing_has_the_new_content() -> None:
    own = {"protocol": "renames", "store": {}, "pseudo_dirs": [""], "mv": mv_over_nothing}
    fsspec.register_implementation("renames", type("Renames", (MemoryFileSystem,), own), clobber=True)
    directory = Directory("renames://bucket/out")
    directory.write("x", b"one")
    directory.write("x", b"two")
    assert directory.read("x") == b"two"
    assert directory.names("") == {"x"}


def test_a_file_in_the_place_of_the_output_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(OutputError, match="out/a: can't be written"):
        Directory(str(tmp_path / "out")).write("a", b"x")


def test_a_temporary_folder_without_room_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output's disk has room, and what it tells itself is not taken for the folder's."""
    for name in ("made", "tmp"):
        (tmp_path / name).mkdir()
    directory = Directory(str(tmp_path / "made"))

    def write(name: str) -> None:
        with directory.writing(name) as stream:
            stream.write(b"x" * 2000)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    message = f"^{tmp_path}/made/a: can't be written: the temporary folder {tmp_path}/tmp can't be written to"
    with pytest.raises(OutputError, match=message), files_up_to(1000):
        write("a")
    (tmp_path / "made/full").write_text("a file")
    with pytest.raises(OutputError, match=r"made/full/a: can't be written: (?!.*the temporary folder)"):
        write("full/a")
    write("a")
    assert directory.names() == {"a", "full"}
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("file", ["out", "out/_manifest", "out/_manifest/done", "out/_manifest/done/x"])
def test_the_file_where_a_directory_should_be_is_named(tmp_path: Path, file: str) -> None:
    """Above the output, or in it."""
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("x")
    directory = Directory(str(tmp_path / "out"))
    message = f"^{tmp_path / file}: is a file; the output needs a directory there$"
    for ask in (directory.read, directory.names, directory.files, directory.sizes):
        with pytest.raises(OutputError, match=message):
            ask("_manifest/done/x/y")
    with pytest.raises(OutputError, match=message):
        directory.names("_manifest/done/x")
    below = Directory(str(tmp_path / "out/_manifest/done/x/deep/below"))
    with pytest.raises(OutputError, match=message):
        below.read("y")


def test_object_stores_keep_the_old_content_when_a_write_breaks_off() -> None:
    directory = Directory("memory://bucket/half")
    directory.write("x", b"whole")
    break_off(directory, "x")
    assert directory.read("x") == b"whole"


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/_shard-000000.parquet.0123.tmp").write_text("half")
    (tmp_path / "run/shard-000000.parquet").write_text("whole")
    Directory(str(tmp_path)).remove_leftovers("run")
    assert Directory(str(tmp_path)).names("run") == {"shard-000000.parquet"}


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=50)


@settings(max_examples=50, deadline=None)
@example("a::b")
@example("~")
@example("k=v?#%20*[x]")
@given(NAMES.filter(lambda name: name not in (".", "..")))
def test_a_directory_of_any_name_is_that_directory(name: str) -> None:
    with TemporaryDirectory() as folder:
        directory = Directory(f"{folder}/{name}/")
        directory.write("run/a", b"data")
        assert directory.create("b", b"more")
        assert (Path(folder) / name / "run/a").read_bytes() == b"data"
        assert (directory.names(), directory.names("run"), directory.read("b")) == (
            {"run", "b"},
            {"a"},
            b"more",
        )
        assert [entry.name for entry in Path(folder).iterdir()] == [name]
        again = Directory(directory.url)
        again.remove("run")
        assert again.names() == {"b"}
        again.remove()
        assert not list(Path(folder).iterdir())


def test_a_pattern_in_the_path_of_a_store_is_refused() -> None:
    for name in ("run*", "run?", "run[1]"):
        with pytest.raises(
            OutputError, match=r"memory://bucket/run.*: has a '.', which a store's client takes"
        ):
            Directory(f"memory://bucket/{name}")


def test_an_outage_is_waited_out_once_by_who_creates_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list[str]()

    def pipe_file(_: Any, path: str, _data: bytes, **_options: Any) -> None:
        tried.append(path)
        raise OSError(errno.EBUSY, "Please reduce your request rate.")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", pipe_file)
    with pytest.raises(TemporaryError, match="reduce your request rate"):
        Directory("memory://created").create("file", b"mine")
    assert tried == ["/created/file"]
