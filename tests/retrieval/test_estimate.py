"""What the dry run tells of embedding: how much is left, how long it takes, what it costs."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline import actor_hours
from pipeline.errors import ConfigError, ModelError
from pipeline.retrieval import flow
from pipeline.retrieve import main
from tests.conftest import MINILM
from tests.retrieval.tables import config, make, write_texts

PASSAGES = {f"p{number}": f"passage number {number}" for number in range(20)} | {"empty": ""}
QUERIES = {"q1": "number 3", "q2": "number 4"}
MINI: dict[str, Any] = {"minilm": {"dense": {"scorer": {"model": MINILM, "device": "cpu"}}}}
PRICED = {"price_per_hour": 3600.0, "max": 4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_texts(tmp_path, PASSAGES, QUERIES)
    return tmp_path


def test_time_and_money_at_a_speed(folder: Path) -> None:
    told = flow.describe(config(folder, sources=MINI, actors=PRICED, shard_passages=7), "0.01")
    assert "minilm     about 21 passages and 2 queries to embed, " in told
    assert "; estimated from 21 and 2 of them" in told
    assert "speed      0.01 texts/s an actor (as told)" in told
    # 23 texts of 100 s in three shards, an actor each: 12.8 minutes, 10 % for uneven ones, 5 for the start.
    assert (
        "time       about 38.3 minutes in this process; on a cluster 19.1 minutes by 3 actors (actors.max)"
        in told
    )
    assert "reading, BM25 and search come on top" in told
    assert "cost       about 2,300.00, 100,000,000.00 a million texts, by actors.price_per_hour" in told


def test_without_a_speed_the_texts_are_counted_and_no_time_is_told(folder: Path) -> None:
    told = flow.describe(config(folder, sources=MINI))
    assert "to embed" in told
    assert not re.search("^(speed|time|cost)", told, re.MULTILINE)


def test_the_speed_is_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor_hours, "_MEASURED_S", 0.0)
    told = flow.describe(config(folder, sources=MINI | {"again": MINI["minilm"]}), "measure")
    for source in ("minilm", "again"):
        assert re.search(
            rf"^speed      {source}: [\d.,]+ texts/s and [\d,]+ tokens/s an actor \(measured here\)$",
            told,
            re.MULTILINE,
        )
    assert "cost       not told: set actors.price_per_hour" in told


def test_what_an_earlier_first_stage_has_is_not_embedded(folder: Path) -> None:
    before = make(config(folder, sources=MINI))
    told = flow.describe(config(folder, sources=MINI, output={"path": str(folder / "next")}))
    (tokens,) = re.findall(r"2 queries to embed, ([\d,]+) tokens", told)
    assert int(tokens.replace(",", "")) == before.tokens
    write_texts(folder, PASSAGES | {"new": "another one"}, QUERIES)
    reusing = config(folder, sources=MINI, output={"path": str(folder / "next")}, reuse=str(folder / "out"))
    told = flow.describe(reusing, "100")
    assert f"minilm     about 1 passages and 0 queries to embed, {tokens_of('another one')} tokens" in told
    assert f", 23 more taken from {folder}/out" in told


def tokens_of(words: str) -> int:
    return len(words.split()) + 2  # [CLS] and [SEP]: both words are in the vocabulary


def test_what_an_earlier_start_did_is_not_left(folder: Path) -> None:
    make(config(folder, sources=MINI))
    assert "to embed" not in flow.describe(config(folder, sources=MINI), "100")  # it is finished
    (folder / "out/_SUCCESS").unlink()
    told = flow.describe(config(folder, sources=MINI), "100")
    assert "about 0 passages and 0 queries to embed" in told
    assert not re.search("^(speed|time|cost)", told, re.MULTILINE)


@pytest.mark.parametrize(
    ("speed", "message"),
    [
        ("0", "--speed 0: needs texts/s above 0, 1e-06 or more"),
        ("inf", "--speed inf: needs texts/s above 0, 1e-06 or more"),
        ("fast", "--speed fast: needs measure, or texts/s an actor in a number"),
    ],
)
def test_a_speed_that_is_none(folder: Path, speed: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        flow.describe(config(folder, sources=MINI), speed)


def test_a_speed_has_no_use_where_nothing_is_embedded_or_no_plan_is_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="--speed 5: tells how fast texts are embedded, and no source is"):
        flow.describe(config(folder), "5")
    (folder / "job.yaml").write_text(config(folder).model_dump_json(exclude_unset=True))
    assert main(["--config", str(folder / "job.yaml"), "--speed", "5"]) == 2
    assert capsys.readouterr().err == "error: --speed is of a plan: add --dry-run\n"


def test_a_model_that_this_machine_cannot_run_is_measured_elsewhere(folder: Path) -> None:
    sources = {"minilm": {"dense": {"scorer": {"model": MINILM}}}}
    on_gpu = config(folder, sources=sources, actors={"num_gpus": 1.0}, executor="ray_data")
    with pytest.raises(ModelError, match=r"--speed measure: .*cuda.*; measure on a machine like the actors'"):
        flow.describe(on_gpu, "measure")
