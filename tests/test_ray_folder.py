"""Folders in which no Ray can work."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray._common.utils import get_default_ray_temp_dir

from pipeline import cluster, own_ray, ray_folder
from pipeline.errors import ConfigError
from tests.own_ray import folder_of_its_own


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """RAY_TMPDIR, with no cluster at hand."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name, value in own_ray._RAYLET_CONNECTS.items():  # a start would set them for good
        monkeypatch.setenv(name, value)
    with folder_of_its_own() as folder:
        monkeypatch.setenv("RAY_TMPDIR", str(folder))
        yield folder


@pytest.fixture
def mounted(here: Path) -> Iterator[Path]:
    """The same as a disk of 40 kB."""
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", here], check=False)
    if made.returncode:
        pytest.skip("a full disk is mounted for this test, which only root may")
    try:
        yield here
    finally:
        subprocess.run(["umount", "-l", here], check=True)


def remounted(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def test_it_is_the_one_that_ray_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    rays_own: Any = get_default_ray_temp_dir  # which has no types
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("", "TMPDIR", "RAY_TMPDIR"):
        if name:
            monkeypatch.setenv(name, f"/somewhere/{name}")
        assert str(ray_folder.folder()) == rays_own()
    monkeypatch.delenv("RAY_TMPDIR")
    assert str(ray_folder.unusable("why")).startswith("TMPDIR /somewhere/TMPDIR: Ray can't work there: why. ")
    monkeypatch.delenv("TMPDIR")
    assert str(ray_folder.unusable("why")).startswith("the folder /tmp: Ray can't work there: why. ")


@pytest.mark.ray
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("file", "Not a directory"),
        ("long", "the path is too long, sockets below it would have more than 107 bytes"),
        ("longer", "File name too long"),
        ("proc", "No such file or directory"),
        ("folder at the address", "ray_current_cluster: Is a directory"),
        ("pipe at the address", "ray_current_cluster: is no file"),
    ],
)
def test_one_that_ray_cant_use_is_named_with_the_way_out(
    here: Path, kind: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = here / {"long": "l" * 80, "longer": "l" * 300}.get(kind, "place")
    if kind == "file":
        place.touch()
    elif kind == "proc":
        place = Path("/proc/nothing")
    elif kind.endswith("at the address"):
        (place / "ray").mkdir(parents=True)
        at = place / "ray/ray_current_cluster"
        at.mkdir() if kind.startswith("folder") else os.mkfifo(at)
    monkeypatch.setenv("RAY_TMPDIR", str(place))
    with pytest.raises(ConfigError, match=f"^RAY_TMPDIR {place}: Ray can't work there: .*{why}. Set RAY_TMP"):
        cluster.join(no_progress_s=1800)


@pytest.mark.parametrize("value", ["", "ray-of-mine", "~/ray-of-mine"])
def test_one_without_an_absolute_path_is_told_before_ray_waits_for_it(
    here: Path, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", value)
    with pytest.raises(ConfigError, match=f"^RAY_TMPDIR {value}: .*: it is no absolute path. Set RAY_TMPDIR"):
        cluster.join(no_progress_s=1800)
    assert "no absolute path" in cluster.describe([])


def test_a_full_disk_is_told_before_ray_waits_for_it(mounted: Path) -> None:
    for start in (cluster.start_early, lambda: cluster.join(no_progress_s=1800)):
        with pytest.raises(ConfigError, match=r": the disk is full, [\d,]+ bytes are free\. Set RAY_TMPDIR"):
            start()
    assert "the disk is full" in cluster.describe([])
    remounted(mounted, "size=100M,nr_inodes=10")
    with pytest.raises(ConfigError, match=r": the disk has room for \d more files \(inodes\) alone"):
        cluster.join(no_progress_s=1800)
    remounted(mounted, "nr_inodes=1000,ro")
    with pytest.raises(ConfigError, match="Read-only file system. Set RAY_TMPDIR"):
        cluster.join(no_progress_s=1800)


def test_errors_of_other_files_are_none_of_the_folder(here: Path) -> None:
    for error in (
        None,
        RuntimeError("no such thing"),
        BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)),
        PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/etc/shadow"),
    ):
        assert ray_folder.trouble(error) is None
    within = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), f"{here}/ray/session_latest")
    assert "Disk quota exceeded" in str(ray_folder.trouble(within))
