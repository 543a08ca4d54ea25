"""A source's scorer that does not fit: the message begins with the field, as a user writes it."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RayrankError
from pipeline.retrieval import flow
from pipeline.retrieval.plan import plan
from tests.conftest import DATA, MINILM, TINY
from tests.retrieval.tables import config, make, write_texts
from tests.scoring.families.test_bi_encoder import bge_like

FIELD = "sources.mine.dense.scorer"


def job(folder: Path, **scorer: Any) -> Any:
    write_texts(folder, {"p1": "one"}, {"q1": "one"})
    sources = {"mine": {"dense": {"scorer": {"model": MINILM, "device": "cpu"} | scorer}}}
    return config(folder, sources=sources)


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        ({"model": "/nowhere"}, "model: /nowhere: no such directory"),
        ({"model": "package:nobody/x"}, "model: package:nobody/x: no Python package 'nobody' is installed"),
        ({"model": str(DATA)}, f"model: no config.json in {DATA}; is it a checkpoint?"),
        ({"model": TINY}, f"model {TINY}: the family sequence_classification scores pairs"),
        ({"peft_path": "/nowhere"}, "peft_path: /nowhere: no such directory"),
        ({"family": "none"}, "family: no family 'none'; there are"),
        ({"max_length": 9999}, f"max_length 9999: {MINILM} has 512 positions"),
        ({"max_length": 2}, "max_length 2: leaves query and passage no room"),
        ({"device": "mps"}, "device mps: not available in this process"),
    ],
)
def test_the_field_is_named_in_full(tmp_path: Path, scorer: dict[str, Any], message: str) -> None:
    with pytest.raises(RayrankError) as refused:
        make(job(tmp_path, **scorer))
    assert str(refused.value).startswith(f"{FIELD}.{message}")


@pytest.mark.parametrize("max_length", [2, 9999])
def test_a_length_that_the_model_can_not_take_is_named_before_a_text_is_read(
    tmp_path: Path, max_length: int
) -> None:
    with pytest.raises(RayrankError, match=f"^{FIELD}.max_length {max_length}: ") as refused:
        plan(job(tmp_path, max_length=max_length))
    assert refused.value.field == f"{FIELD}.max_length"


def test_a_dry_run_names_it_too(tmp_path: Path) -> None:
    with pytest.raises(RayrankError) as refused:
        flow.describe(job(tmp_path, max_length=9999))
    assert str(refused.value).startswith(f"{FIELD}.max_length 9999: ")


def test_weights_that_are_damaged_are_the_models(tmp_path: Path) -> None:
    """They are read when embedding begins."""
    model = bge_like(tmp_path / "model", "cls", normalize=True)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(RayrankError) as refused:
        make(job(tmp_path, model=str(model)))
    assert str(refused.value).startswith(f"{FIELD}.model: {model}")


def test_a_device_that_the_actors_lack(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{FIELD}.device cuda needs actors that hold a GPU"):
        job(tmp_path, device="cuda")
