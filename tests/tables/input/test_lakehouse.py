"""A lakehouse's table is never read as the plain Parquet files that it consists of."""

from pathlib import Path

import fsspec
import pytest

from pipeline.errors import InputError, NotThereError
from pipeline.tables.config import InputConfig, TextsConfig
from pipeline.tables.input.listing import find_files
from pipeline.tables.table_files import table_files

LOGS = {
    "Delta": "_delta_log/00000000000000000000.json",
    "Hudi": ".hoodie/hoodie.properties",
    "Iceberg": "metadata/00001-8a7f9e0e-5e5b-4d0a-a2a5-0f4a3c5c4d11.metadata.json",
    "Lance": "_versions/1.manifest",
}


def find(url: str) -> list[str]:
    return [file.url for file in find_files(url, (".parquet",), lambda _: False)[0]]


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


@pytest.mark.parametrize("kind", LOGS)
@pytest.mark.parametrize(
    "below",
    ["", "t", "t/data", "t/data/day=1", "t/data/day=1/a.parquet", "t/data/*/*.parquet", "t/data/**", "*"],
)
def test_a_table_is_refused_wherever_the_path_stands(tmp_path: Path, kind: str, below: str) -> None:
    put(tmp_path / "t", LOGS[kind], "data/day=1/a.parquet")
    put(tmp_path, "other.parquet")
    with pytest.raises(InputError, match=rf"^{tmp_path}/t: is a lakehouse's table \({kind}\); its files"):
        find(f"{tmp_path}/{below}")
    assert find(f"{tmp_path}/other.parquet") == [f"{tmp_path}/other.parquet"]


def test_the_way_out_is_that_of_the_table(tmp_path: Path) -> None:
    put(tmp_path / "t", LOGS["Delta"], "a.parquet")
    way_out = rf"updated\. Read it as one: --set queries.format=delta --set queries.path={tmp_path}/t$"
    with pytest.raises(InputError, match=way_out):
        table_files(TextsConfig(path=f"{tmp_path}/t"), "queries", "_id")
    put(tmp_path / "i", LOGS["Iceberg"], "data/a.parquet")
    with pytest.raises(
        InputError, match=r"--set input.format=iceberg --set input.path=\(its metadata.json\)$"
    ):
        table_files(InputConfig(path=f"{tmp_path}/i"), "input", "query_id")
    put(tmp_path / "h", LOGS["Hudi"], "a.parquet")
    with pytest.raises(
        InputError, match=r"updated\. Write its rows to a folder of Parquet files, and name that$"
    ):
        table_files(TextsConfig(path=f"{tmp_path}/h/a.parquet"), "passages", "_id")


def test_what_only_looks_like_one_is_read(tmp_path: Path) -> None:
    put(tmp_path / "a", "metadata/x.metadata.json", "data/a.parquet")  # of no Iceberg
    put(tmp_path / "b", f"_old/{LOGS['Delta']}", "_old/a.parquet", "b.parquet")  # which is not read
    put(tmp_path / "c", LOGS["Iceberg"], "c.parquet")  # no table without its data
    assert find(f"{tmp_path}") == [
        f"{tmp_path}/a/data/a.parquet",
        f"{tmp_path}/b/b.parquet",
        f"{tmp_path}/c/c.parquet",
    ]
    assert find(f"{tmp_path}/a/data") == [f"{tmp_path}/a/data/a.parquet"]
    put(tmp_path / "d", LOGS["Delta"])
    with pytest.raises(NotThereError):  # of another format, which no such table's files have
        find_files(f"{tmp_path}/d", (".csv",), lambda _: False)


@pytest.mark.parametrize("below", ["", "/data", "/data/a.parquet", "/data/*.parquet"])
def test_a_table_in_a_store_is_refused(below: str) -> None:
    fs = fsspec.filesystem("memory")
    for name in (LOGS["Delta"], "data/a.parquet"):
        fs.pipe(f"/lakehouse/t/{name}", b"x")
    with pytest.raises(InputError, match=r"^memory:///?lakehouse/t: is a lakehouse's table \(Delta\)"):
        find(f"memory://lakehouse/t{below}")


def test_a_folder_above_that_must_not_be_looked_at_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/shut/t/a.parquet", b"x")
    is_folder = type(fs).isdir

    def isdir(self: object, path: str) -> bool:
        if path.startswith("/shut/_"):
            raise PermissionError(path)
        return bool(is_folder(self, path))

    monkeypatch.setattr(type(fs), "isdir", isdir)
    assert find("memory://shut/t") == ["memory:///shut/t/a.parquet"]
