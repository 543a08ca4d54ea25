"""The first stage on a real Ray of this machine."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.retrieval.config import RetrieveConfig
from tests.conftest import MINILM
from tests.retrieval.tables import bytes_of, config, make, write_texts

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("on_head")]

SOURCES = {"words": {"bm25": {}}, "minilm": {"dense": {"scorer": {"model": MINILM, "device": "cpu"}}}}


def both(folder: Path, executor: str, **sections: Any) -> RetrieveConfig:
    output = {"path": str(folder / executor), "trec_run": True}
    return config(folder, sources=SOURCES, shard_passages=7, executor=executor, output=output, **sections)


def test_it_writes_the_bytes_of_a_first_stage_in_this_process(tmp_path: Path) -> None:
    passages = {f"p{number}": f"text {number} of {number % 7}" for number in range(20)}
    write_texts(tmp_path, passages, {f"q{number}": f"text {number}" for number in range(5)})
    summary, alone = (make(both(tmp_path, executor)) for executor in ("ray_data", "here"))
    assert summary == alone.model_copy(update={"output": summary.output, "wall_s": summary.wall_s})
    assert bytes_of(tmp_path / "ray_data") == bytes_of(tmp_path / "here")


def test_what_goes_wrong_in_a_task_arrives_as_itself(tmp_path: Path) -> None:
    write_texts(tmp_path, {"p1": "one", "p2": "two"}, {"q1": "one"})
    with (tmp_path / "corpus.jsonl").open("a") as stream:
        stream.write("{}\n" * 2000 + "[]\n")
    with pytest.raises(InputError, match=r"corpus.jsonl line 2003: not a JSON object"):
        make(both(tmp_path, "ray_data"))
