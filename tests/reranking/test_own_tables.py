"""A job whose table is the output of another command, which is made again meanwhile."""

import os
from pathlib import Path

import pytest

from pipeline.errors import InputError, OutputError
from pipeline.reranking import flow
from pipeline.reranking.config import RerankConfig
from pipeline.tables.input.files import check_unchanged, find_file, known_by
from tests.conftest import MINILM
from tests.retrieval.tables import config, make, write_texts

PASSAGES = {f"p{number}": f"panda {number} of stone" for number in range(6)}
QUERIES = {f"q{number}": f"panda {number}" for number in range(4)}


def job(folder: Path) -> RerankConfig:
    return RerankConfig.model_validate(
        {
            "input": {"path": str(folder / "out/candidates")},
            "output": {"path": str(folder / "run")},
            "scorer": {"model": MINILM, "device": "cpu"},
            "shard_pairs": 6,
            "executor": "here",
        }
    )


def make_again(folder: Path) -> None:
    """The first stage, whose table got lost; the files are newer now."""
    (part,) = (folder / "out/candidates").iterdir()
    before = part.read_bytes()
    part.unlink()
    make(config(folder))
    assert part.read_bytes() == before
    os.utime(part, (part.stat().st_mtime + 60,) * 2)


def test_a_table_that_is_made_again_is_the_same(tmp_path: Path) -> None:
    write_texts(tmp_path, PASSAGES, QUERIES)
    make(config(tmp_path))
    assert flow.run(job(tmp_path)).shards == 4
    make_again(tmp_path)
    shard = tmp_path / "run/run/shard-000002.parquet"
    kept = shard.stat().st_mtime_ns
    flow.run(job(tmp_path))  # finished: nothing is done
    assert shard.stat().st_mtime_ns == kept
    for name in ("_SUCCESS", "summary.json", "_manifest/done/shard-000001.json"):
        (tmp_path / "run" / name).unlink()  # as if it had been killed in its second shard
    make_again(tmp_path)
    assert flow.run(job(tmp_path)).shards_done_before == 3
    assert shard.stat().st_mtime_ns == kept


def test_another_table_in_its_place_is_another_job(tmp_path: Path) -> None:
    for name, texts in (("one", PASSAGES), ("two", PASSAGES | {"p0": "no bear at all"})):
        write_texts(tmp_path, texts, QUERIES)
        make(config(tmp_path))
        (tmp_path / "out").rename(tmp_path / name)
    (tmp_path / "one").rename(tmp_path / "out")
    flow.run(job(tmp_path))
    (tmp_path / "out").rename(tmp_path / "one")
    (tmp_path / "two").rename(tmp_path / "out")
    with pytest.raises(OutputError, match="holds the output of another job"):
        flow.run(job(tmp_path))


def test_a_file_that_is_known_by_its_digest_has_its_size(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_bytes(b"12345")
    file = known_by(find_file(str(path)), "abc")
    assert file.identity == "5 bytes, digest abc"
    path.write_bytes(b"54321")
    check_unchanged(str(path), file.identity)
    path.write_bytes(b"123456")
    with pytest.raises(InputError, match=r"planned with 5 bytes, digest abc, now 6 bytes"):
        check_unchanged(str(path), file.identity)
    path.unlink()
    with pytest.raises(InputError, match="now gone"):
        check_unchanged(str(path), file.identity)
