"""Symbolic links in what an input lists."""

from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.tables.input.files import find_file
from pipeline.tables.input.listing import find_files
from tests.tables.input.test_listing import is_like, names, put


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
        files, skipped = find_files(url, (".parquet",), is_like)
        assert [(file.url.rpartition("/")[2], file.size) for file in files] == [
            ("a.parquet", 1), ("b.parquet", 2), ("c.parquet", 3),
        ]  # fmt: skip
        assert skipped == {}
        assert [find_file(file.url) for file in files] == files
    assert names(f"{folder}/*/c.parquet") == names(f"{folder}/sub/c.parquet") == ["c.parquet"]


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
            find_files(url, (".parquet",), is_like)
    (folder / "b.parquet").unlink()
    for links in ({"up": ".."}, {"itself": "itself"}, {"one/to": "../two", "two/back": "../one"}):
        for link, target in links.items():
            (folder / link).symlink_to(target)
        with pytest.raises(InputError, match=r"/\w+: a symbolic link (that leads in a circle|to what)"):
            find_files(str(folder), (".parquet",), is_like)
        for link in links:
            (folder / link).unlink()


def test_a_file_that_links_lead_to_twice_is_read_once(tmp_path: Path) -> None:
    put(tmp_path / "m", **{"a.parquet": "x", "b.parquet": "y"})
    (tmp_path / "latest").symlink_to("m")
    (tmp_path / "m" / "c.parquet").symlink_to("b.parquet")
    for url in (str(tmp_path), f"{tmp_path}/*"):
        files, skipped = find_files(url, (".parquet",), is_like)
        assert [file.url for file in files] == [f"{tmp_path}/m/a.parquet", f"{tmp_path}/m/b.parquet"]
        assert skipped[f"{tmp_path}/latest/a.parquet"] == (
            f"is the same file as {tmp_path}/m/a.parquet, through a link"
        )
        assert len(skipped) == 4
    (tmp_path / "lang=en").symlink_to("m")  # rows of another partition
    assert len(find_files(str(tmp_path), (".parquet",), is_like)[0]) == 4


def test_folders_of_links_to_each_other_are_walked_once(tmp_path: Path) -> None:
    folders = [tmp_path / "t" / f"d{number:02}" for number in range(40)]  # 2^39 paths to the last
    for folder, following in pairwise(folders):
        folder.mkdir(parents=True)
        for link in ("a", "b"):
            (folder / link).symlink_to(following)
    put(folders[-1], **{"a.parquet": "x"})
    files, skipped = find_files(str(tmp_path / "t"), (".parquet",), is_like)
    assert [file.url for file in files] == [f"{folders[-1]}/a.parquet"]
    assert skipped[f"{folders[0]}/b"] == "is a directory that another link has led to"
    for pattern, ending in (
        ("**/*.parquet", "/t/d39/a.parquet"),
        ("d*/**/a.parquet", "/t/d39/a.parquet"),
        ("**/b/*.parquet", "/b/a.parquet"),  # though a led there before
        ("**/a/b/a.*", "/a/b/a.parquet"),
    ):
        (file,), _ = find_files(str(tmp_path / "t" / pattern), (".parquet",), is_like)
        assert file.url.endswith(ending)


def test_a_link_that_is_hidden_or_beside_a_glob_hides_no_other(tmp_path: Path) -> None:
    put(tmp_path / "blobs", **{"a.parquet": "x"})
    place = tmp_path / "t"
    place.mkdir()
    for link in (".cache", "a", "b", "lang=en"):
        (place / link).symlink_to(tmp_path / "blobs")
    expected = {"": ["a", "lang=en"], "/b*/*.parquet": ["b"], "/b*": ["b"]}
    for url, links in expected.items():
        files, _ = find_files(f"{place}{url}", (".parquet",), is_like)
        assert [file.url for file in files] == [f"{place}/{link}/a.parquet" for link in links]
