"""`dtype: auto` of a first stage: settled once, in the plan, and kept by whoever goes on."""

from pathlib import Path

import pytest

from pipeline.errors import InputError, ModelError
from pipeline.job_record import read_record
from pipeline.retrieval import flow, scorers
from pipeline.retrieval.config import RetrieveConfig
from pipeline.retrieval.executors import here
from pipeline.scoring import dtype
from pipeline.tables.output.directory import Directory
from tests.conftest import MINILM
from tests.retrieval.tables import bytes_of, config, make, write_texts


@pytest.fixture(autouse=True)
def texts(tmp_path: Path) -> None:
    write_texts(
        tmp_path, {"p1": "panda bear", "p2": "stone bridge", "p3": "bread"}, {"q1": "what is a panda?"}
    )


def job(folder: Path, out: str, dtype: str, **sections: str) -> RetrieveConfig:
    scorer = {"model": MINILM, "device": "cpu", "dtype": dtype}
    return config(
        folder,
        sources={"minilm": {"dense": {"scorer": scorer}}},
        output={"path": f"{folder}/{out}"},
        **sections,
    )


def play(monkeypatch: pytest.MonkeyPatch, *, bfloat16: bool) -> None:
    """A chip."""
    scorers.loaded.cache_clear()
    monkeypatch.setattr(dtype, "has_bfloat16", lambda _: bfloat16)


def test_a_first_stage_is_the_one_that_names_what_auto_became(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, bfloat16=True)
    make(job(tmp_path, "auto", "auto"))
    make(job(tmp_path, "named", "bfloat16"))
    records = [read_record(Directory(f"{tmp_path}/{name}")) for name in ("auto", "named")]
    assert records[0] == records[1]
    assert bytes_of(tmp_path / "auto") == bytes_of(tmp_path / "named")
    monkeypatch.setattr(dtype, "fastest_dtype", lambda _: pytest.fail("asked again"))
    assert make(job(tmp_path, "auto", "auto")).finished_before is not None


def test_a_process_whose_chip_differs_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, bfloat16=False)
    monkeypatch.setattr(here, "fastest_dtypes", lambda *_: ["bfloat16"])  # another node's
    with pytest.raises(ModelError, match=r"^sources\.minilm\.dense\.scorer\.dtype auto: became bfloat16"):
        make(job(tmp_path, "out", "auto"))


def test_a_dry_run_asks_no_actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, bfloat16=True)
    make(job(tmp_path, "previous", "auto"))
    reuse = f"{tmp_path}/previous"
    assert "minilm" in flow.describe(job(tmp_path, "next", "auto", executor="ray_data", reuse=reuse))
    with pytest.raises(InputError, match=r'scorer\.dtype was "bfloat16", is "float32"'):
        flow.describe(job(tmp_path, "next", "float32", reuse=reuse))
