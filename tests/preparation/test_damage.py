"""Prepared tables that were damaged, or are not finished."""

from pathlib import Path

import pytest

from pipeline.errors import InputError, OutputError, TemporaryError
from pipeline.output import open_directory
from pipeline.preparation import flow
from pipeline.tables.input.listing import find_files
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.lease import lease
from tests.preparation.tables import bytes_of, trec

FILES = ("candidates", "rejects", "summary.json", "_manifest/files.json", "_manifest/read", "_SUCCESS")


@pytest.mark.parametrize("way", ["delete", "truncate", "empty", "flip", "add"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_table_is_named_to_its_reader_and_made_again(folder: Path, name: str, way: str) -> None:
    with (folder / "run.trec").open("a") as stream:
        stream.write("q9 Q0 p1 1 1 bm25\n")  # a query without a text
    flow.run(trec(folder))
    right = bytes_of(folder / "out")
    place = folder / "out" / name
    file = next(iter(sorted(place.iterdir()))) if place.is_dir() else place
    data = file.read_bytes()
    if way == "delete":
        file.unlink()
    elif way == "add":
        file.with_name(f"more-{file.name}").write_bytes(data)
    elif data:
        flipped = data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
        file.write_bytes({"truncate": data[:4], "empty": b"", "flip": flipped}[way])
    told = f"more-{file.name}" if way == "add" else file.name
    try:
        open_directory(f"{folder}/next", [f"{folder}/out/candidates"])
    except InputError as error:
        assert told in str(error)  # noqa: PT017  (no error is right as well, for what no reader sees)
        assert way != "flip" or file.name == name.rpartition("/")[2]
    else:
        assert name in ("_manifest/read", "_SUCCESS") or way in ("flip", "add")
    try:
        flow.run(trec(folder), check_bytes=True)
    except OutputError as error:
        assert (way, told in str(error)) == ("add", True)  # noqa: PT017  (as above)
    else:
        assert bytes_of(folder / "out") == right
        open_directory(f"{folder}/next", [f"{folder}/out/candidates"])


def test_a_whole_output_and_an_unfinished_table_are_not_read(folder: Path) -> None:
    flow.run(trec(folder))
    with pytest.raises(InputError, match=r"/out/: is a whole output; its table is .*/out/candidates/$"):
        find_files(f"{folder}/out/", (".parquet",), lambda _: True)
    (folder / "out/_SUCCESS").unlink()
    with pytest.raises(InputError, match=r"out/candidates: is not finished .*; run pipeline.prepare for it"):
        open_directory(f"{folder}/next", [f"{folder}/out/candidates"])
    being_written = pytest.raises(TemporaryError, match="is not finished: pipeline.prepare is writing it now")
    with lease(Directory(f"{folder}/out"), 1, 0), being_written:
        open_directory(f"{folder}/next", [f"{folder}/out/candidates"])
