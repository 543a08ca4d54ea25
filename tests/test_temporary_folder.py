"""Real errors of the system: /dev/full has no room, RLIMIT_FSIZE limits files."""

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import InputError, OutputError
from pipeline.temporary_folder import filling, new_folder, spool
from tests.full_disk import files_up_to


def told(why: str, way_out: str = "make room there, or set TMPDIR to another folder") -> str:
    place = re.escape(tempfile.gettempdir())
    return f"^x can't be kept: the temporary folder {place} can't be written to: {why}; {way_out}$"


def fill(file: BinaryIO) -> None:
    file.write(b"x" * 100_000)


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files are /dev/full."""
    made = tmp_path / "made"

    def mkstemp(prefix: str) -> tuple[int, str]:
        made.touch()
        return os.open("/dev/full", os.O_RDWR), str(made)

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)


def test_what_is_written_is_read_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with spool("x can't be kept") as file:
        fill(file)
        file.flush()
        assert os.pread(file.fileno(), 10, 99_995) == b"x" * 5
        assert not list(tmp_path.iterdir())  # a process that is killed leaves nothing
    with spool("x can't be kept", named=True) as file:
        file.write(b"some")
        file.flush()
        assert Path(file.name).read_bytes() == b"some"
    with new_folder("a-", "x can't be kept") as folder:
        (folder / "in").write_text("it")
        assert folder.parent == tmp_path
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("full")
def test_no_room_is_told_of_the_temporary_folder() -> None:
    def few_bytes() -> None:
        with spool("x can't be kept") as file:
            file.write(b"few")
            file.flush()

    def many_bytes() -> None:
        with spool("x can't be kept") as file:
            fill(file)

    for write in (few_bytes, many_bytes):
        with pytest.raises(OutputError, match=told("No space left on device")):
            write()


@pytest.mark.usefixtures("full")
def test_a_library_that_makes_another_error_of_it_is_not_believed() -> None:
    """torch.save has a RuntimeError of its own."""
    with pytest.raises(OutputError, match=told("No space left on device")), spool("x can't be kept") as file:
        torch.save({"a": torch.zeros(100_000)}, file)


@pytest.mark.usefixtures("full")
def test_errors_of_others_go_through(tmp_path: Path) -> None:
    """Also where something is left to be written that finds no room."""

    def begin() -> None:
        with spool("x can't be kept") as file:
            file.write(b"few")
            raise InputError("bad row")

    with pytest.raises(InputError, match="bad row"):
        begin()
    with pytest.raises(FileNotFoundError, match="nowhere"), spool("x can't be kept"):
        (tmp_path / "nowhere").read_text()
    with new_folder("a-", "x can't be kept") as folder:
        with pytest.raises(FileNotFoundError, match="nowhere"), filling(folder, "x can't be kept"):
            shutil.copyfile(tmp_path / "nowhere", folder / "copy")
        with pytest.raises(OutputError, match="^out: lost$"), filling(folder, "x can't be kept", Exception):
            raise OutputError("out: lost")
        with pytest.raises(RuntimeError, match="a bug"), filling(folder, "x can't be kept"):
            raise RuntimeError("a bug")


def test_a_folder_without_room_is_told(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 3000)
    with new_folder("a-", "x can't be kept") as folder:
        (folder / "full").symlink_to("/dev/full")
        with (
            pytest.raises(OutputError, match=told("No space left on device")),
            filling(folder, "x can't be kept"),
        ):
            shutil.copyfile(tmp_path / "source", folder / "full")  # its error names the source
        with (
            pytest.raises(OutputError, match=told("File too large")),
            files_up_to(1000),
            filling(folder, "x can't be kept"),
        ):
            save_file({"a": torch.zeros(1000)}, folder / "weights.safetensors")
        shutil.rmtree(folder)
        with (
            pytest.raises(
                OutputError, match=told("No such file or directory", "set TMPDIR to another folder")
            ),
            filling(folder, "x can't be kept"),
        ):
            (folder / "config.json").write_text("{}")


def test_without_any_folder_those_that_were_tried_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "gone")])
    message = r"^x can't be kept: there is no temporary folder: .*/gone'\]; make room in one .* set TMPDIR"
    with pytest.raises(OutputError, match=message), spool("x can't be kept"):
        pass
    with pytest.raises(OutputError, match=message), new_folder("a-", "x can't be kept"):
        pass
