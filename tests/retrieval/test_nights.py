"""A first stage of every night: one config, dates in its paths, embeddings of the night before."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError, TemporaryError
from pipeline.retrieval import flow, steps
from pipeline.retrieval.config import RetrieveConfig
from tests.conftest import MINILM
from tests.retrieval.tables import config, make, rows_of, write_texts

PASSAGES = {"p1": "the panda eats bamboo", "p2": "a bridge over the river", "p3": "bread from the oven"}
QUERIES = {"q1": "what eats bamboo?", "q2": "how to bake"}


def night(folder: Path, day: int, **sections: Any) -> RetrieveConfig:
    scorer = {"model": MINILM, "device": "cpu"} | sections.pop("scorer", {})
    lies = f"{folder}/{{run_date}}"
    given: dict[str, Any] = {
        "passages": {"path": f"{lies}/corpus.jsonl", "format": "jsonl"},
        "sources": {"minilm": {"dense": {"scorer": scorer}}},
        "output": {"path": f"{folder}/out/{{run_date}}"},
        "reuse": f"{folder}/out/{{previous_run_date}}",
        "run_date": f"2026-11-{day:02}",
    }
    return config(folder, **(given | sections))


def write(folder: Path, day: int, passages: dict[str, str]) -> None:
    (folder / f"2026-11-{day:02}").mkdir()
    write_texts(folder / f"2026-11-{day:02}", passages, {})
    write_texts(folder, {}, QUERIES)


def embedded(folder: Path, day: int, **sections: Any) -> tuple[int, int]:
    summary = make(night(folder, day, **sections))
    return summary.embedded, summary.reused


def test_each_night_takes_the_embeddings_of_the_latest_finished_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for day in (1, 2, 4, 5):
        write(tmp_path, day, PASSAGES | {f"p of {day}": f"news of day {day}"})
    assert embedded(tmp_path, 1) == (6, 0)
    assert "no earlier first stage to take embeddings from" in caplog.text
    assert [record.levelname for record in caplog.records if "no earlier" in record.getMessage()] == ["INFO"]
    assert embedded(tmp_path, 2) == (1, 5)
    assert f"embeddings of an earlier first stage are taken run={tmp_path}/out/2026-11-01" in caplog.text
    # What is mended takes them, too.
    vectors = next((tmp_path / "out/2026-11-02/embeddings/minilm/passages").iterdir())
    kept = vectors.read_bytes()
    vectors.write_bytes(kept[:-1])
    assert embedded(tmp_path, 2) == (1, 5)
    assert vectors.read_bytes() == kept
    (tmp_path / "out/2026-11-02/_SUCCESS").unlink()
    assert embedded(tmp_path, 4) == (1, 5)
    assert "first stage not taken for its embeddings" in caplog.text
    # Another model begins anew, and a trial of one night does not cost the next one its embeddings.
    assert embedded(tmp_path, 5, scorer={"max_length": 9}) == (6, 0)
    write(tmp_path, 6, PASSAGES)
    assert f"reuse      {tmp_path}/out/2026-11-04" in flow.describe(night(tmp_path, 6))
    assert embedded(tmp_path, 6) == (0, 5)
    assert {row["passage_id"] for row in rows_of(tmp_path, "out/2026-11-06/candidates")} == {*PASSAGES}
    # The date is no part of the job, and a finished one looks for nothing.
    assert make(night(tmp_path, 6).model_copy(update={"reuse": None})).finished_before


def test_a_damaged_night_is_told_and_a_wrong_place_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for day in (1, 2):
        write(tmp_path, day, PASSAGES)
    make(night(tmp_path, 1))
    elsewhere = night(tmp_path, 2, reuse=f"{tmp_path}/uot/{{previous_run_date}}")
    assert "reuse      none" in flow.describe(elsewhere)
    assert "it is not output.path: is it right?" in caplog.text
    next((tmp_path / "out/2026-11-01/embeddings/minilm/passages").iterdir()).unlink()
    with pytest.raises(InputError, match=r"reuse: .*2026-11-01/embeddings.*is missing; run that first stage"):
        make(night(tmp_path, 2))


def test_a_corpus_that_is_late_or_half_written_is_waited_for(tmp_path: Path) -> None:
    write_texts(tmp_path, {}, QUERIES)
    with pytest.raises(TemporaryError, match=r"2026-11-20/corpus.jsonl: .*It is not there yet"):
        make(night(tmp_path, 20))
    write(tmp_path, 20, PASSAGES)
    guarded = {"path": f"{tmp_path}/{{run_date}}/", "format": "jsonl", "success_file": "_SUCCESS"}
    (tmp_path / "2026-11-20/queries.jsonl").unlink()
    with pytest.raises(TemporaryError, match=r"_SUCCESS is not there yet"):
        make(night(tmp_path, 20, passages=guarded))
    assert not (tmp_path / "out").exists()
    (tmp_path / "2026-11-20/_SUCCESS").touch()
    assert make(night(tmp_path, 20, passages=guarded)).passages == 3
    assert make(night(tmp_path, 20)).finished_before


def test_what_can_not_be_reused_is_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, 1, PASSAGES)
    with pytest.raises(InputError, match=r"no source of this config is dense"):
        make(night(tmp_path, 1, sources={"words": {"bm25": {}}}))
    with pytest.raises(ValueError, match=r"reuse .*previous_run_date} needs the date: --set run_date"):
        night(tmp_path, 1, run_date=None, passages={"path": "in", "format": "jsonl"}, output={"path": "out"})


def stopped(folder: Path, day: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start of this night that ends where it begins to embed."""
    with monkeypatch.context() as patch:
        patch.setitem(steps.STEPS, "embed", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make(night(folder, day))


def test_a_night_that_was_killed_keeps_the_one_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for day in (1, 2, 3):
        write(tmp_path, day, PASSAGES | {"p of 2": "news of day 2"} if day > 1 else PASSAGES)
    stopped(tmp_path, 2, monkeypatch)
    assert embedded(tmp_path, 1) == (5, 0)
    assert embedded(tmp_path, 2) == (6, 0)  # as an uninterrupted start would have, before day 1 had ended
    shutil.rmtree(tmp_path / "out/2026-11-02")
    stopped(tmp_path, 3, monkeypatch)
    assert embedded(tmp_path, 2) == (1, 5)
    assert f"reuse      {tmp_path}/out/2026-11-01" in flow.describe(night(tmp_path, 3))
    assert embedded(tmp_path, 3) == (1, 5)  # of day 1: what is new on day 2 is embedded here, too
    # So does one that is mended, until its config names another place.
    next((tmp_path / "out/2026-11-03/embeddings/minilm/passages").iterdir()).unlink()
    (tmp_path / "out/2026-11-01/_SUCCESS").unlink()
    with pytest.raises(InputError, match=r"2026-11-01: no finished first stage .*; leave reuse out to embed"):
        make(night(tmp_path, 3))
    assert embedded(tmp_path, 3, reuse=f"{tmp_path}/out/2026-11-02") == (0, 6)


def test_what_can_not_be_read_leaves_the_output_to_another_job(tmp_path: Path) -> None:
    write(tmp_path, 1, {"p 1": "the panda eats bamboo"})
    output = {"path": f"{tmp_path}/out/{{run_date}}", "trec_run": True}
    with pytest.raises(InputError, match="which a TREC run can't hold"):
        make(night(tmp_path, 1, output=output))
    assert embedded(tmp_path, 1) == (3, 0)


def test_a_night_is_mended_when_the_one_that_it_took_from_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for day in (1, 2):
        write(tmp_path, day, PASSAGES | {f"p of {day}": f"news of day {day}"})
        make(night(tmp_path, day))
    shutil.rmtree(tmp_path / "out/2026-11-01")
    candidates = next((tmp_path / "out/2026-11-02/candidates").iterdir())
    kept = candidates.read_bytes()
    candidates.unlink()
    assert embedded(tmp_path, 2) == (1, 5)
    assert candidates.read_bytes() == kept
    assert "the run that gave this job embeddings is gone: what is lacking is embedded run=" in caplog.text
    assert (tmp_path / "out/2026-11-02/_SUCCESS").exists()
    fixed = f"{tmp_path}/out/2026-11-02"
    make(night(tmp_path, 2, reuse=fixed, output={"path": f"{tmp_path}/again"}))
    shutil.rmtree(fixed)
    next((tmp_path / "again/candidates").iterdir()).unlink()
    assert make(night(tmp_path, 2, reuse=fixed, output={"path": f"{tmp_path}/again"})).reused == 6
    with pytest.raises(InputError, match="no finished first stage"):
        make(night(tmp_path, 2, reuse=fixed, output={"path": f"{tmp_path}/new"}))
