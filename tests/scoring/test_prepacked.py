"""Prepacked linear layers, in float32 as well: not every chip that tests run on multiplies bfloat16."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from pipeline.scoring import packing, prepacked
from pipeline.scoring.engines.torch import prepare
from pipeline.scoring.prepacked import (
    PrepackedLinear,
    gelu_in_place,
    prepack,
    prepacks,
    replace_linear,
)

CPU = torch.device("cpu")
AMD = {"avx512_f": True, "avx512_bf16": True}


def network(activation: str = "gelu", model_type: str = "xlm-roberta") -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type,
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_act=activation,
        id2label={0: "relevance"},
        initializer_range=0.5,
        pad_token_id=1,
    )
    auto: Any = AutoModelForSequenceClassification
    made = auto.from_config(config)
    for weight in made.parameters():  # ModernBERT's initial ones give nearly the same score to all
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.5)
    return made.eval()


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_python", "relu"])
@torch.inference_mode()
def test_a_network_gives_the_logits_that_it_gave(activation: str) -> None:
    model, ids = network(activation), torch.randint(5, 100, (7, 9))
    before = model(input_ids=ids).logits
    replace_linear(model, torch.float32)
    assert before.std() > 0.1
    torch.testing.assert_close(model(input_ids=ids).logits, before, rtol=0, atol=1e-5)
    assert not any(type(module) is nn.Linear for module in model.modules())
    gelus_taken = sum(isinstance(module, nn.Identity) for module in model.modules())
    assert gelus_taken == (2 if activation == "gelu" else 0)


@pytest.mark.parametrize("model_type", [*packing._LAYOUTS, "deberta-v2"])
@torch.inference_mode()
def test_gelu_in_place_writes_over_its_input_and_gives_the_same_bits(model_type: str) -> None:
    model, ids = network(model_type=model_type), torch.randint(5, 100, (7, 9))
    before = model(input_ids=ids, output_hidden_states=True)
    gelu_in_place(model)
    after = model(input_ids=ids, output_hidden_states=True)
    assert before.logits.std() > 0.1
    assert all(map(torch.equal, (before.logits, *before.hidden_states), (after.logits, *after.hidden_states)))
    layer = next((module for module in model.modules() if hasattr(module, "intermediate_act_fn")), None)
    assert (layer is None) == (model_type in ("gte", "llama", "modernbert"))
    if layer is not None:
        states = torch.randn(5)
        expected = nn.functional.gelu(states)
        assert torch.equal(layer.intermediate_act_fn(states), expected)
        assert torch.equal(states, expected)  # written over


@pytest.mark.parametrize(("model_type", "drops_padding"), [("xlm-roberta", True), ("deberta-v2", False)])
def test_every_network_has_it(model_type: str, drops_padding: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)  # elsewhere the layer before it takes it over
    model = network(model_type=model_type)
    assert prepare(model, "logits", CPU, torch.float32).drops_padding == drops_padding
    activation = model.base_model.encoder.layer[1].intermediate.intermediate_act_fn
    assert activation.act is torch.ops.aten.gelu_


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_python", "relu"])
def test_another_activation_stays(activation: str) -> None:
    model, states = network(activation), torch.randn(5)
    gelu_in_place(model)
    kept = states.clone()
    model.roberta.encoder.layer[0].intermediate.intermediate_act_fn(states)
    assert torch.equal(states, kept)


@pytest.mark.parametrize("model_type", packing._LAYOUTS)
@torch.inference_mode()
def test_every_kind_that_is_packed_gives_the_logits_that_it_gave(model_type: str) -> None:
    model, ids = network(model_type=model_type), torch.randint(5, 100, (7, 9))
    before = model(input_ids=ids).logits
    replace_linear(model, torch.float32)
    assert before.std() > 0.1
    torch.testing.assert_close(model(input_ids=ids).logits, before, rtol=0, atol=1e-5)
    sums_taken = sum(isinstance(module, prepacked._PrepackedOutput) for module in model.modules())
    assert sums_taken == (0 if model_type in ("gte", "llama", "modernbert") else 4)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("tokens", [0, 1, 7, 2000])
@torch.inference_mode()
def test_a_layer_takes_any_number_of_tokens(tokens: int, has_bias: bool) -> None:
    linear, states = nn.Linear(16, 24, bias=has_bias), torch.randn(1, tokens, 16)
    for gelu in (False, True):
        expected = nn.functional.gelu(linear(states)) if gelu else linear(states)
        torch.testing.assert_close(PrepackedLinear(linear, gelu=gelu)(states), expected, rtol=0, atol=1e-5)
    before = torch.randn(1, tokens, 24)
    found = PrepackedLinear(linear, gelu=False).plus(states, before)
    torch.testing.assert_close(found, linear(states) + before, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_in_bfloat16_the_backbone_alone_is_prepacked_and_as_exact_as_it_was() -> None:
    model, ids = network(), torch.randint(5, 100, (7, 9))
    exact = model.roberta(input_ids=ids)[0]
    model.roberta.to(torch.bfloat16)
    error_before = (model.roberta(input_ids=ids)[0] - exact).abs().mean()
    prepack(model, CPU, torch.bfloat16)
    assert 0 < (model.roberta(input_ids=ids)[0] - exact).abs().mean() < 1.1 * error_before
    assert isinstance(model.classifier.dense, nn.Linear)
    prepacked_layers = isinstance(model.roberta.encoder.layer[1].output.dense, PrepackedLinear)
    assert prepacked_layers == prepacks(CPU, torch.bfloat16)  # not every chip multiplies bfloat16


@pytest.mark.parametrize("chip", [AMD, {"avx512_f": True}])
@torch.inference_mode()
def test_in_float32_the_chip_decides_and_the_logits_stay(
    chip: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: chip)
    model, ids = network(), torch.randint(5, 100, (7, 9))
    before = model(input_ids=ids).logits
    computation = prepare(model, "logits", CPU, torch.float32)
    assert computation.lay is not None
    row = computation.lay(ids, torch.ones_like(ids))
    assert row["ids"].shape == (1, 64 if chip == AMD else 63)
    assert before.std() > 0.1
    torch.testing.assert_close(computation.run(**row), before, rtol=0, atol=1e-5)
    assert isinstance(model.roberta.encoder.layer[1].output.dense, PrepackedLinear) == (chip == AMD)
    assert not isinstance(model.classifier.dense, PrepackedLinear)


@pytest.mark.parametrize(
    ("chip", "device", "dtype"),
    [
        (AMD, "cuda", torch.bfloat16),
        (AMD, "cuda", torch.float32),
        (AMD, "cpu", torch.float16),
        ({"avx512_f": True}, "cpu", torch.float32),
        (AMD | {"amx_bf16": True}, "cpu", torch.float32),
        ({"bf16": True}, "cpu", torch.float32),
    ],
)
def test_elsewhere_nothing_is_changed(
    chip: dict[str, bool], device: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: chip)
    model = network().to(dtype)
    prepack(model, torch.device(device), dtype)
    assert not any(isinstance(module, PrepackedLinear) for module in model.modules())
