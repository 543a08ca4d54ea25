import gzip
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.tables.input.deleted_rows import DeletedRows
from pipeline.tables.input.files import check_unchanged, find_file, without
from pipeline.tables.input.limits import DEFAULT_LIMITS
from pipeline.tables.input.text_file import open_text


def test_a_link_is_changed_when_its_target_is(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"x")
    (tmp_path / "a.parquet").symlink_to("blob")
    file = find_file(str(tmp_path / "a.parquet"))
    check_unchanged(file.url, file.identity)
    (tmp_path / "blob").write_bytes(b"xy")
    with pytest.raises(InputError, match=r"a.parquet: changed while the job ran"):
        check_unchanged(file.url, file.identity)


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
        with (
            pytest.raises(InputError, match=f"{name}: .*{message}"),
            open_text(str(tmp_path / name), DEFAULT_LIMITS),
        ):
            pass


@pytest.mark.parametrize("data", [b"", b"id,a\0b: one zero\n", b"q Q0 d\0 1 2 x\n", b"a\r\n", b"a", b"a\r"])
def test_other_texts_are_opened(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t").write_bytes(data)
    with open_text(str(tmp_path / "t"), DEFAULT_LIMITS) as stream:
        assert stream.read() == data


def test_what_is_deleted_makes_another_file_of_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("abc")
    file = find_file(str(path))
    one, other = (without(file, DeletedRows.at(np.array([row]))) for row in (1, 2))
    assert len({file.identity, one.identity, other.identity}) == 3
    assert without(file, DeletedRows()) == file
    check_unchanged(one.url, one.identity)
    path.write_text("abcd")
    with pytest.raises(
        InputError, match=r"changed while the job ran \(planned with 3 bytes, [^,]*, now 4 bytes"
    ):
        check_unchanged(one.url, one.identity)
