"""Files of a first stage that were lost or changed: seen, named, and made again with the same bytes."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import retrieve, status
from pipeline.errors import InputError, OutputError
from pipeline.output import open_directory
from pipeline.retrieval.summary import Summary
from tests.conftest import MINILM
from tests.retrieval.tables import bytes_of, config, make, write_texts

PASSAGES = {f"p{number}": f"panda {number} bridge" for number in range(4)} | {"p4": None}
QUERIES = {"q1": "panda", "q2": "unheard!"}
SETTINGS: dict[str, Any] = {
    "sources": {"words": {"bm25": {}}, "minilm": {"dense": {"scorer": {"model": MINILM, "device": "cpu"}}}},
    "shard_passages": 2,
    "output": {"trec_run": True},
}
PARTS = [
    "candidates/part-000000-000000.parquet",
    "embeddings/minilm/passages/000000-000000.parquet",
    "embeddings/minilm/queries/000000-000000.parquet",
    "rejects/passages-000000.parquet",
    "run.trec",
    "_manifest/files.json",
    "summary.json",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder, PASSAGES, QUERIES)
    make(config(folder, **SETTINGS))
    return folder


def again(folder: Path, **more: Any) -> Summary:
    return make(config(folder, **SETTINGS), **more)


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
@pytest.mark.parametrize("part", PARTS)
def test_a_damaged_file_is_made_again(
    folder: Path, part: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "out"
    whole, data = bytes_of(out), (out / part).read_bytes()
    damaged = {"gone": b"", "cut": data[:4], "changed": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]}[damage]
    (out / part).write_bytes(damaged)
    if damage == "gone":
        (out / part).unlink()
    assert status.main(["--output", str(out), "--check-bytes"]) == 4
    assert part in capsys.readouterr().out
    again(folder, check_bytes=damage == "changed")
    told = capsys.readouterr().err
    assert part in told
    assert "_work/" not in told  # it was removed at the end, and is no damage
    assert bytes_of(out) == whole
    assert status.main(["--output", str(out), "--check-bytes"]) == 0
    assert again(folder, check_bytes=True).finished_before is not None


def test_a_table_that_is_not_whole_is_refused(folder: Path) -> None:
    out = folder / "out"
    table = [str(out / "candidates")]
    open_directory(str(folder / "b"), table)
    data = (out / PARTS[0]).read_bytes()
    (out / PARTS[0]).unlink()
    with pytest.raises(InputError, match=r"part-0.*: is missing; run pipeline.retrieve for it again"):
        open_directory(str(folder / "b"), table)
    with pytest.raises(InputError, match=r"reuse: .*: is missing; run that first stage again"):
        make(config(folder, **SETTINGS | {"output": {"path": str(folder / "b")}}, reuse=str(out)))
    (out / PARTS[0]).write_bytes(data)
    (out / "_SUCCESS").unlink()
    with pytest.raises(InputError, match=r"candidates: is not finished .*; run pipeline.retrieve for it to"):
        open_directory(str(folder / "b"), table)
    again(folder)


def test_a_file_of_unknown_origin_is_named(folder: Path) -> None:
    strange = folder / "out/candidates/part-9.parquet"
    strange.write_bytes((folder / "out" / PARTS[0]).read_bytes())
    with pytest.raises(OutputError, match=r"part-9.parquet: is no file of this output; remove it"):
        again(folder)
    strange.unlink()
    assert again(folder).finished_before is not None


def test_another_jobs_marker_is_none(folder: Path, tmp_path: Path) -> None:
    """Of a first stage with other settings, copied into this one's place."""
    write_texts(tmp_path, PASSAGES, QUERIES)
    other = {**SETTINGS, "output": {"top_k": 1, "trec_run": True}}
    make(config(tmp_path, **other))
    marker = "_manifest/tasks/merge-000000-000000.json"
    (tmp_path / "out" / marker).write_bytes((folder / "out" / marker).read_bytes())
    (tmp_path / "out/_SUCCESS").unlink()
    assert make(config(tmp_path, **other)).candidates == 2
    assert json.loads((tmp_path / "out" / marker).read_text())["result"]["candidates"] == 2


def test_the_command_takes_check_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        retrieve.main(["--help"])
    assert "--check-bytes" in capsys.readouterr().out
