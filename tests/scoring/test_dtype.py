"""`dtype: auto`, on chips that are not here: the functions that ask the chip play others."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import ModelError
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring import dtype as asked
from pipeline.scoring.dtype import check_native, fastest_dtype, has_bfloat16, settled
from tests.conftest import TINY

Chip = Callable[..., None]


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> Chip:
    def play(device: str, *, bfloat16: bool) -> None:
        monkeypatch.setattr(asked, "resolve_device", lambda _: torch.device(device))
        monkeypatch.setattr(asked, "has_bfloat16", lambda _: bfloat16)

    return play


@pytest.mark.parametrize(
    ("device", "bfloat16", "fastest"),
    [
        ("cpu", True, "bfloat16"),
        ("cpu", False, "float32"),
        ("cuda", True, "bfloat16"),
        ("cuda", False, "float16"),
        ("mps", False, "float16"),
    ],
)
def test_the_fastest_is_what_the_chip_computes_itself(
    chip: Chip, device: str, bfloat16: bool, fastest: str
) -> None:
    chip(device, bfloat16=bfloat16)
    assert fastest_dtype("auto") == fastest


@pytest.mark.parametrize(
    ("instructions", "torch_uses_them", "native"),
    [
        ({"amx_tile": True, "amx_bf16": True}, True, True),
        ({"avx512_f": True, "avx512_bf16": True}, True, True),
        ({"neon": True, "bf16": True}, True, True),
        ({"neon": True, "bf16": True}, False, False),  # torch for macOS has no oneDNN
        ({"avx512_f": True, "avx512_bw": True, "amx_tile": False}, True, False),  # oneDNN only emulates
        ({"avx2": True}, True, False),
        ({}, True, False),
    ],
)
def test_a_cpu_has_bfloat16_where_both_the_chip_and_torch_say_so(
    monkeypatch: pytest.MonkeyPatch, instructions: dict[str, bool], torch_uses_them: bool, native: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    of_onednn = SimpleNamespace(_is_mkldnn_bf16_supported=lambda: torch_uses_them)
    monkeypatch.setattr(torch.ops, "mkldnn", of_onednn)
    assert has_bfloat16(torch.device("cpu")) is native


def test_torch_answers_on_this_machine() -> None:
    assert isinstance(has_bfloat16(torch.device("cpu")), bool)
    assert not has_bfloat16(torch.device("mps"))


def test_a_scorer_settles_it_with_its_weights(chip: Chip) -> None:
    pairs = [("what is panda?", "hi"), ("what is panda?", "The giant panda is a bear.")]
    for bfloat16, dtype in ((True, "bfloat16"), (False, "float32")):
        chip("cpu", bfloat16=bfloat16)
        scorer = Scorer(ScorerConfig(model=TINY, device="cpu", dtype="auto"))
        scorer.encode(pairs)
        assert scorer.config.dtype == "auto"  # a process that only encodes may have another chip
        scores = scorer.score(pairs)
        assert scorer.config.dtype == dtype
        named: dict[str, Any] = {"model": TINY, "device": "cpu", "dtype": dtype}
        np.testing.assert_array_equal(scores, Scorer(ScorerConfig(**named)).score(pairs))


def test_the_network_of_a_decoder_comes_in_it(chip: Chip) -> None:
    chip("cpu", bfloat16=True)
    network = Scorer(ScorerConfig(model=f"{TINY}-v2-gemma", device="cpu", dtype="auto")).load_network()
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}


def test_a_dtype_that_is_given_stays(chip: Chip) -> None:
    chip("cpu", bfloat16=True)
    config = ScorerConfig(model=TINY, device="cpu")
    assert settled(config) is config
    scorer = Scorer(config)
    scorer.settle("bfloat16")
    assert scorer.config.dtype == "float32"


def test_what_another_node_found_is_refused_where_it_is_not_native(chip: Chip) -> None:
    def check(dtype: Any) -> None:
        check_native(ScorerConfig(model=TINY, dtype=dtype))

    chip("cpu", bfloat16=False)
    check("float32")
    for dtype in ("bfloat16", "float16"):
        with pytest.raises(ModelError, match=rf"dtype auto: became {dtype} .* on its cpu\. Write dtype: fl"):
            check(dtype)
    chip("cuda", bfloat16=False)
    check("float16")
    with pytest.raises(ModelError, match="on its cuda"):
        check("bfloat16")
    chip("cuda", bfloat16=True)
    check("bfloat16")
