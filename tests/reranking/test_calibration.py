"""Jobs in int8: one calibrated model for all that score, made from the job's own pairs."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError, ModelError, OutputError
from pipeline.reranking import calibration, flow
from pipeline.reranking.calibration import at_hand, sampled_pairs, spread
from pipeline.reranking.dry_run import describe
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.tables.candidates import plan_table
from pipeline.tables.output.directory import Directory
from tests.conftest import TINY, golden_cases
from tests.full_disk import files_up_to
from tests.reranking.jobs import config, data_of


def int8(path: str) -> dict[str, Any]:
    quantization = {"kind": "int8", "path": path, "calibration_pairs": 20}
    return {"engine": "openvino", "quantization": quantization}


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A calibrated model for the tests that need any: making one takes seconds."""
    scorer = ScorerConfig.model_validate({"model": TINY, "device": "cpu", **int8("unused")})
    return Scorer(scorer).calibrate([("what is a panda?", "hi"), ("a", "b c d")])


@pytest.fixture
def calibrates(monkeypatch: pytest.MonkeyPatch, calibrated: bytes) -> list[int]:
    """How many pairs each calibration was handed; none takes time."""
    handed: list[int] = []

    def calibrate(_self: Scorer, pairs: list[tuple[str, str]]) -> bytes:
        handed.append(len(pairs))
        return calibrated

    monkeypatch.setattr(Scorer, "calibrate", calibrate)
    return handed


def test_a_job_calibrates_once_and_its_actors_read(table: Path, calibrates: list[int]) -> None:
    path = table.parent / "models/tiny.int8"
    first = flow.run(config(table, scorer=int8(str(path))))
    assert first.model_fingerprint.split(" + int8 ")[1].startswith("sha256:")
    again = flow.run(config(table, "again", scorer=int8(str(path))))
    assert again.model_fingerprint == first.model_fingerprint
    assert data_of(table.parent / "again") == data_of(table.parent / "out")
    assert calibrates == [20]
    assert [file.name for file in path.parent.iterdir()] == ["tiny.int8"]


def test_it_scores_as_the_scorer_alone(table: Path, calibrates: list[int]) -> None:
    settings = config(table, scorer=int8(str(table.parent / "tiny.int8")))
    flow.run(settings)
    run = pq.read_table(table.parent / "out/run").sort_by("passage_id")
    assert settings.scorer is not None
    expected = Scorer(settings.scorer).score(golden_cases("tiny-bge-reranker")[0].pairs)
    np.testing.assert_allclose(run["score"].to_numpy(), expected, rtol=0, atol=1e-3)


def test_the_model_may_lie_in_a_store(table: Path, calibrates: list[int]) -> None:
    flow.run(config(table, scorer=int8("memory://models/tiny.int8")))
    assert calibrates == [20]
    flow.run(config(table, "again", scorer=int8("memory://models/tiny.int8")))
    assert calibrates == [20]
    assert data_of(table.parent / "again") == data_of(table.parent / "out")


def test_of_two_who_calibrate_at_once_one_file_stays(
    table: Path, monkeypatch: pytest.MonkeyPatch, calibrated: bytes
) -> None:
    path = table.parent / "tiny.int8"

    def calibrate(_self: Scorer, _pairs: list[tuple[str, str]]) -> bytes:
        path.write_bytes(calibrated)  # another job's, which was faster
        return b"this one's"

    monkeypatch.setattr(Scorer, "calibrate", calibrate)
    flow.run(config(table, scorer=int8(str(path))))
    assert path.read_bytes() == calibrated


def test_a_calibration_that_is_killed_leaves_nothing(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_self: Scorer, _pairs: list[tuple[str, str]]) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(Scorer, "calibrate", killed)
    with pytest.raises(KeyboardInterrupt):
        flow.run(config(table, scorer=int8(str(table.parent / "models/tiny.int8"))))
    assert not (table.parent / "models").exists()
    assert not (table.parent / "out").exists()


def test_scores_of_another_precision_are_not_mixed(
    table: Path, calibrates: list[int], calibrated: bytes
) -> None:
    float32, here = {"engine": "openvino"}, table.parent
    flow.run(config(table, scorer=float32))
    with pytest.raises(OutputError, match=r"scorer.quantization.kind: was not given, is \"int8\""):
        flow.run(config(table, scorer=int8(str(here / "tiny.int8"))))
    with pytest.raises(InputError, match="its scores are another scorer's"):
        flow.run(config(table, "reusing", scorer=int8(str(here / "tiny.int8")), reuse=str(here / "out")))
    flow.run(config(table, "int8", scorer=int8(str(here / "tiny.int8"))))
    other = here / "other.int8"
    other.write_bytes(calibrated + b"\0")  # a file of another content; zip allows what comes after
    for message, sections in (
        ("the model's weights or files differ", {"reuse": str(here / "int8")}),
        ("scorer: the model's weights or files: were sha256:.* int8 sha256:", {"out": "int8"}),
    ):
        with pytest.raises((InputError, OutputError), match=message):
            flow.run(config(table, **{"out": "reusing", **sections}, scorer=int8(str(other))))


def test_one_that_is_replaced_while_the_job_starts_is_seen(
    table: Path, monkeypatch: pytest.MonkeyPatch, calibrates: list[int], calibrated: bytes
) -> None:
    path = table.parent / "tiny.int8"
    settings = config(table, scorer=int8(str(path)))
    scorers = flow.plan_job(settings).scorers
    path.write_bytes(calibrated + b"\0")
    with pytest.raises(ModelError, match=r"quantization.path: .*, and not sha256:"):
        _ = Scorer(scorers[0].pinned_config).model


def test_a_dry_run_calibrates_nothing(table: Path, calibrates: list[int]) -> None:
    assert "shards" in describe(config(table, scorer=int8(str(table.parent / "tiny.int8"))))
    assert calibrates == []
    assert not (table.parent / "tiny.int8").exists()


def test_a_copy_that_finds_no_room_is_told(calibrated: bytes) -> None:
    """As a limit on the size of files shows it."""
    Directory("memory://models").write("tiny.int8", calibrated)
    path = "memory://models/tiny.int8"
    scorer = ScorerConfig.model_validate({"model": TINY, "device": "cpu", **int8(path)})
    message = (
        f"^quantization.path: {path}: can't be copied: the temporary folder {tempfile.gettempdir()} can't"
    )
    with pytest.raises(OutputError, match=message), files_up_to(1000), at_hand(scorer):
        pass
    with at_hand(scorer) as here:
        assert here.quantization is not None
        assert Path(here.quantization.path).read_bytes() == calibrated


def test_a_record_of_before_stays_the_same(table: Path) -> None:
    assert "scorer.quantization" not in config(table).determining_fields()


def test_positions_are_spread_and_each_is_taken_once() -> None:
    for number in range(40):
        for wanted in range(45):
            taken = spread(number, wanted)
            assert taken == sorted(set(taken)), "twice"
            assert len(taken) == min(number, wanted)
            assert all(0 <= at < number for at in taken)
            gaps = np.diff([-0.5, *(at + 0.5 for at in taken), number + 0.5])[1:-1]
            assert not len(gaps) or max(gaps) - min(gaps) <= 1
    assert (spread(9, 1), spread(10, 2), spread(3, 2)) == ([4], [2, 7], [0, 2])


@pytest.mark.parametrize("rows", [100, 5000])
def test_a_shard_that_is_short_is_made_up_for(tmp_path: Path, rows: int) -> None:
    """Queries of four pairs: the last shard of 96 has the rest of them, far below its share."""
    numbers = range(rows)
    columns = {
        "query_id": [f"q{number // 4:05}" for number in numbers],
        "query": [f"query {number // 4}" for number in numbers],
        "passage_id": [f"p{number}" for number in numbers],
        "passage": [f"passage {number}" for number in numbers],
    }
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    settings = config(tmp_path / "in.parquet", shard_pairs=96)
    plan = plan_table(settings.input, {}, settings.shard_pairs)
    for number in (1, 60, 99, 100):
        pairs = sampled_pairs(settings, plan, number)
        assert len(set(pairs)) == len(pairs) == number


def test_pairs_come_from_the_whole_table(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(table)
    plan = plan_table(settings.input, {}, settings.shard_pairs)
    everything = sampled_pairs(settings, plan, 10**6)
    assert len(everything) == sum(shard.pairs for shard in plan.shards)
    few = sampled_pairs(settings, plan, 7)
    assert len(few) == 7
    assert set(few) <= set(everything)
    monkeypatch.setattr(calibration, "_SHARDS", 2)
    assert len(sampled_pairs(settings, plan, 6)) == 6
    # Shards of eight pairs: where two have too few, others are read.
    assert len(sampled_pairs(settings, plan, 20)) == 20
    assert sorted(sampled_pairs(settings, plan, 10**6)) == sorted(everything)
