"""What a power cut must not take is on the disk before what vouches for it is seen."""

import os
from pathlib import Path

import pytest

from pipeline.errors import OutputError
from pipeline.tables.output.local_disk import (
    link_into_place,
    make_directory,
    move_into_place,
    refuse_lost_link,
)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Names of what was synced, in order, each with whether the target was there."""
    seen: list[tuple[str, bool]] = []

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        folder = path if path.is_dir() else path.parent
        seen.append((path.name.partition(".")[0], (folder / "target").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


def test_a_file_is_synced_before_it_is_in_place_and_its_folder_after(
    tmp_path: Path, synced: list[tuple[str, bool]]
) -> None:
    (tmp_path / "beside").write_bytes(b"data")
    move_into_place(f"{tmp_path}/beside", f"{tmp_path}/target")
    assert synced == [("beside", False), (tmp_path.name, True)]
    assert (tmp_path / "target").read_bytes() == b"data"


def test_so_is_a_file_that_must_be_the_first(tmp_path: Path, synced: list[tuple[str, bool]]) -> None:
    assert link_into_place(b"data", f"{tmp_path}/target")
    assert synced == [("target", False), (tmp_path.name, True)]
    assert not link_into_place(b"other", f"{tmp_path}/target")
    assert (tmp_path / "target").read_bytes() == b"data"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_new_folder_is_synced_in_the_one_above(tmp_path: Path, synced: list[tuple[str, bool]]) -> None:
    make_directory(tmp_path / "above/below")
    make_directory(tmp_path / "above/below")
    assert [name for name, _ in synced] == [tmp_path.name, "above"]


def test_a_path_that_cant_be_looked_at_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="x: can't be looked at: File name too long"):
        refuse_lost_link(tmp_path / ("x" * 300))
