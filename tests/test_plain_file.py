"""What is opened as a file, and what is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.plain_file import open_plain
from tests.conftest import ROOT


def test_a_file_is_read_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    with open_plain(tmp_path / "link") as stream:
        assert stream.read() == b"abc"


def test_pipes_devices_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, reason in ((tmp_path / "pipe", "is no file"), (Path("/dev/zero"), "is no file")):
        for piped in (False, True):
            with pytest.raises(OSError, match=reason) as caught:
                open_plain(path, piped=piped)
            assert caught.value.strerror == reason
    with pytest.raises(IsADirectoryError):
        open_plain(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_plain(tmp_path / "nothing")


def test_a_config_may_come_through_a_pipe_of_the_shell() -> None:
    code = (
        "from pathlib import Path; from pipeline.plain_file import open_plain\n"
        "print(open_plain(Path('/dev/stdin'), piped=True).read())"
    )
    command = f'(sleep 0.3; echo late) | {sys.executable} -c "{code}"'
    ended = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "b'late\\n'\n"
