from pathlib import Path

import fsspec
import pytest

from pipeline.errors import OutputError
from pipeline.tables.output.directory import Directory


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


def test_a_file_in_the_place_of_the_output_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(OutputError, match="out/a: can't be written"):
        Directory(str(tmp_path / "out")).write("a", b"x")


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
