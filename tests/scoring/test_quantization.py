"""A calibrated model: what it scores, and which files are not taken for one."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError, ModelError, OutputError
from pipeline.scoring import Quantization, Scorer, ScorerConfig
from tests.conftest import MINILM, TINY
from tests.full_disk import files_up_to
from tests.scoring.engines.test_openvino import pairs


def int8(path: Path, **options: Any) -> Scorer:
    quantization = {"kind": "int8", "path": str(path), **options.pop("quantization", {})}
    settings = {"model": TINY, "device": "cpu", "engine": "openvino", "quantization": quantization, **options}
    return Scorer(ScorerConfig.model_validate(settings))


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("calibrated") / "tiny.int8"
    file.write_bytes(int8(file).calibrate(pairs()))
    return file


def test_it_scores_nearly_as_the_model_does_and_alike_in_any_batch(calibrated: Path) -> None:
    ours = int8(calibrated)
    exact = Scorer(ScorerConfig(model=TINY, device="cpu")).score(pairs())
    scores = ours.score(pairs())
    # Random weights of width 32 have no room to spare; a trained model keeps its order.
    assert np.abs(scores - exact).max() > 0
    assert np.corrcoef(scores, exact)[0, 1] > 0.5
    alone = np.concatenate([ours.score([pair]) for pair in pairs()[:5]])
    np.testing.assert_allclose(scores[:5], alone, rtol=0, atol=1e-3)


def test_its_fingerprint_is_the_files(calibrated: Path) -> None:
    ours = int8(calibrated)
    plain = Scorer(ScorerConfig(model=TINY, device="cpu", engine="openvino")).fingerprint
    weights, _, of_file = ours.fingerprint.partition(" + int8 ")
    assert weights == plain
    pinned = int8(calibrated, quantization={"fingerprint": of_file})
    assert pinned.fingerprint == ours.fingerprint
    pinned.check_calibration()


def test_a_file_that_does_not_fit_is_refused_in_words(calibrated: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^quantization.path: .*nowhere: no calibrated model; a job with"):
        _ = int8(tmp_path / "nowhere").model
    (tmp_path / "damaged").write_bytes(calibrated.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"damaged: is no calibrated model, or damaged; remove it"):
        int8(tmp_path / "damaged").check_calibration()
    with pytest.raises(ModelError, match=r"was made with checkpoint sha256:.*take another path"):
        int8(calibrated, model=MINILM).check_calibration()
    with pytest.raises(ModelError, match=r"was made with calibration_pairs 300, not 7; take another path"):
        int8(calibrated, quantization={"calibration_pairs": 7}).check_calibration()
    with pytest.raises(ModelError, match=r"is sha256:.*, and not sha256:other"):
        _ = int8(calibrated, quantization={"fingerprint": "sha256:other"}).model


def test_a_bit_that_flipped_is_seen(calibrated: Path, tmp_path: Path) -> None:
    data = bytearray(calibrated.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "flipped").write_bytes(data)
    with pytest.raises(ModelError, match="is no calibrated model, or damaged"):
        int8(tmp_path / "flipped").check_calibration()


def test_whatever_bit_flipped_there_is_no_other_error(calibrated: Path, tmp_path: Path) -> None:
    """In the names and numbers of the archive: that it is encrypted, or begins before its beginning, say."""
    data, file, refused = calibrated.read_bytes(), tmp_path / "flipped", 0
    for at in (*range(60), *range(len(data) - 600, len(data))):
        for bit in range(8):
            file.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
            try:
                int8(file).check_calibration()
            except ModelError:
                refused += 1
    assert refused > 1000


def test_an_engine_without_int8_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^quantization: engine torch computes no int8; set engine to openv"
    ):
        int8(tmp_path / "any", engine="torch")


def test_an_embedding_model_is_calibrated_on_both_texts_of_a_pair(tmp_path: Path) -> None:
    file = tmp_path / "minilm.int8"
    few = pairs()[1:8]
    file.write_bytes(int8(file, model=MINILM).calibrate(few))
    exact = Scorer(ScorerConfig(model=MINILM, device="cpu")).score(few)
    np.testing.assert_allclose(int8(file, model=MINILM).score(few), exact, rtol=0, atol=0.1)


def test_a_quantization_has_a_kind_and_a_path() -> None:
    with pytest.raises(ConfigError, match="path: is required"):
        Quantization(kind="int8")  # type: ignore[call-arg]  # what a user may forget


def test_a_calibrated_model_that_finds_no_room_is_told(tmp_path: Path) -> None:
    """As a limit on the size of files shows it."""
    message = f"^the calibrated model can't be kept: the temporary folder {tempfile.gettempdir()} can't"
    with pytest.raises(OutputError, match=message), files_up_to(1000):
        int8(tmp_path / "none").calibrate(pairs())
